"""Wire types: OpenAI's dialect, FastChat's, server-sent events, and the one table of errors."""
