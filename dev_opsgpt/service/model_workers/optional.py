"""Providers that need a package of their own: its absence is remembered, not raised."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Missing:
    """Why a provider could not be imported, as one line for a person."""

    reason: str


@contextmanager
def optional(
    provider: str, missing: dict[str, Missing], *, package: str | None = None
) -> Iterator[None]:
    """Guards the import of one provider: what it raises is written into ``missing`` under the
    provider's name, and told to whoever asks for that provider.

    ``package`` is what pip calls the package, where it is not the name that is imported.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not name or name == __name__.partition(".")[0]:
            missing[provider] = Missing(f"its import failed: {error}")
        else:
            install = f"pip install {package or name}"
            missing[provider] = Missing(f"it needs the package '{name}', try: {install}")
    except Exception as error:
        # Whatever a provider's module does on import is that provider's trouble alone.
        missing[provider] = Missing(f"its import failed: {type(error).__name__}: {error}")
