"""The public port: OpenAI's surface, the hot path that forwards bytes, keys, the watched table."""
