"""What is kept: keys and usage, in SQLite or PostgreSQL. Blocking; to be used from threads."""
