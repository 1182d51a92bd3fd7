"""What several tests need: engines that do as told, and the whole stack on real ports."""
