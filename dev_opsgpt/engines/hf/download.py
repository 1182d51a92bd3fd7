"""How far a download from the hub is, taken from the bars that the hub's client draws."""

from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm


def bar_class(model: str, progress: Callable[[str, float], None] | None) -> type[Any]:
    """A progress bar for ``snapshot_download`` that draws nothing and calls ``progress``. The
    client has a bar for files, and bars for bytes; the latter are passed on."""

    class Bar(tqdm):  # type: ignore[misc]
        """Counts, and passes on what it has counted."""

        def update(self, n: float | None = 1) -> bool | None:
            """So many more."""
            drawn: bool | None = super().update(n)
            if progress is not None and self.unit == "B" and self.total:
                progress(f"downloading {model}", min(1.0, self.n / self.total))
            return drawn

        def display(self, *args: Any, **kwargs: Any) -> None:
            """Called where a bar would be drawn."""

    return Bar
