"""One suite for whatever answers OpenAI's dialect: engines and providers alike, over HTTP."""
