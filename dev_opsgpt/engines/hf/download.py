"""How far a download from the hub is, taken from the bars that the hub's client draws."""

from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

# The client has a bar for bytes that arrive and one for bytes that are written; this is the latter.
_WRITTEN = "huggingface_hub.snapshot_download"


def bar_class(model: str, progress: Callable[[str, float], None] | None) -> type[Any]:
    """A progress bar for ``snapshot_download`` that draws nothing and calls ``progress``."""

    class Bar(tqdm):  # type: ignore[misc]
        """Counts, and passes on what it has counted."""

        def __init__(self, *args: Any, name: str | None = None, **kwargs: Any) -> None:
            self._tells = name == _WRITTEN and progress is not None
            super().__init__(*args, **kwargs | {"disable": False, "mininterval": 0.2})

        def display(self, *args: Any, **kwargs: Any) -> None:
            """Called now and then, where a bar would be drawn."""
            if self._tells and self.total and progress is not None:
                done = min(1.0, self.n / self.total)
                progress(f"downloading {model}", done)

    return Bar
