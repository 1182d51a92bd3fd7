"""What runs in vLLM's own interpreter, which has nothing of this package: each file stands alone.
This folder is put on that interpreter's path, so nothing else belongs here."""
