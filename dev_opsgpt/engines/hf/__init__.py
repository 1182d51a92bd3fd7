"""Models in Hugging Face format, run by transformers and torch. Nothing here is imported by the
base: torch is an extra (``requirements-transformers.txt``)."""
