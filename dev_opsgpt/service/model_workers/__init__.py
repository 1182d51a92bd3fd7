"""Providers: models behind online APIs, one file each.

A provider is registered by its import here, and started by an entry of ``ONLINE_LLM_MODEL`` with
``"provider": "XXWorker"``. One that needs a package of its own is imported under ``optional``, so
that the others work where the package is not installed::

    with optional("XXWorker", missing):
        from .xx import XXWorker
"""

from .openai import ExampleWorker, OpenAIWorker
from .optional import Missing, optional

__all__ = ["ExampleWorker", "OpenAIWorker", "missing", "optional"]

missing: dict[str, Missing] = {}
"""Providers whose import failed, and why."""
