"""The scenarios' CPU times as a picture: bars on a logarithmic scale, in SVG."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.dataplane import Figures, Scenario

WIDTH = 860
LABEL = 290
RIGHT = 80
BAR = 16
ROW = 22
TITLE = 34
AXIS = 30
OURS = "#2563eb"
OTHERS = "#94a3b8"
TEXT = "#334155"
GRID = "#e2e8f0"


def svg(
    scenarios: Sequence[tuple[Scenario, Mapping[str, Figures]]],
    names: Mapping[str, str],
    ours: frozenset[str],
) -> str:
    """One panel a scenario, a bar a contender that has a CPU time. ``ours`` are emphasized.
    Text is drawn over white, so that it can be read on a dark page too."""
    parts: list[str] = []
    top = 0
    for scenario, figures in scenarios:
        bars = {name: one.cpu for name, one in figures.items() if one.cpu > 0}
        if bars:
            parts += _panel(f"{scenario.name}: {scenario.title}", bars, names, ours, top)
            top += TITLE + ROW * len(bars) + AXIS
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        f'viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="12" role="img" '
        'aria-label="CPU milliseconds per request, logarithmic">'
    )
    return "\n".join(
        [head, f'<rect width="{WIDTH}" height="{top}" fill="#fff"/>', *parts, "</svg>"]
    )


def _panel(
    title: str,
    bars: Mapping[str, float],
    names: Mapping[str, str],
    ours: frozenset[str],
    top: int,
) -> list[str]:
    low, high = decades(list(bars.values()))
    foot = top + TITLE + ROW * len(bars)
    parts = [_text(10, top + 22, f"{title} (CPU ms per request)", bold=True)]
    for power in range(low, high + 1):
        x = place(10.0**power, low, high)
        parts.append(
            f'<line x1="{x:.1f}" y1="{top + TITLE}" x2="{x:.1f}" y2="{foot}" stroke="{GRID}"/>'
        )
        parts.append(_text(x, foot + 15, f"{10.0**power:g}", anchor="middle"))
    for row, (name, value) in enumerate(bars.items()):
        y = top + TITLE + ROW * row
        end = place(value, low, high)
        colour = OURS if name in ours else OTHERS
        parts.append(_text(LABEL - 8, y + 12, names[name], anchor="end"))
        parts.append(
            f'<rect x="{LABEL}" y="{y}" width="{end - LABEL:.1f}" height="{BAR}" fill="{colour}"/>'
        )
        parts.append(_text(end + 5, y + 12, f"{value:.3g}"))
    return parts


def decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten below all values, so that every bar has a length, and not below any."""
    low = math.ceil(math.log10(min(values))) - 1
    return low, math.ceil(math.log10(max(values)))


def place(value: float, low: int, high: int) -> float:
    """The x of a value between two powers of ten."""
    return LABEL + (math.log10(value) - low) / (high - low) * (WIDTH - LABEL - RIGHT)


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:.1f}" y="{y}" text-anchor="{anchor}"'
    return f'<text {place} fill="{TEXT}"{weight}>{escape(text)}</text>'
