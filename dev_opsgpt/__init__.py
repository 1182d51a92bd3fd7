"""OpsGPT Serve: local models and online providers behind one OpenAI-compatible port."""

__version__ = "0.1.0"
