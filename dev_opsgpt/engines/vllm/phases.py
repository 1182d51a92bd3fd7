"""How far vLLM has come with its start, by what it writes meanwhile. Pure.

vLLM tells nothing of this by HTTP before it is healthy. The lines are those of its loaders
(``model_executor/model_loader``), its runners (``v1/worker``), its compiler (``compilation``) and
its server; what is not among them changes nothing, so that a vLLM that words them in another way
only shows less.
"""

import re
from typing import NamedTuple

ASKING = "asking vLLM for its options"
STARTING = "starting vLLM"
_WEIGHTS = "loading the weights"
_WARMING = "warming up"
_GRAPHS = "capturing graphs"
_MARKS = (
    (re.compile(r"Starting to load model|Loading \w+ checkpoint shards"), _WEIGHTS),
    (re.compile(r"Loading weights took|Model loading took"), _WARMING),
    (re.compile(r"for vLLM's torch\.compile|Dynamo bytecode|Compiling a graph"), "compiling"),
    (re.compile(r"torch\.compile (?:takes|took)|Warming up model"), _WARMING),
    (re.compile(r"KV cache size|Available KV cache memory"), "making the cache"),
    (re.compile(r"Capturing .*graph"), _GRAPHS),
    (re.compile(r"Graph capturing finished|Warming up done"), _WARMING),
    (re.compile(r"Starting vLLM|Started server process"), "starting the server"),
)
# A progress bar: "...: 50% Completed | 1/2 [", or tqdm's own with its blocks.
_DONE = re.compile(r":\s+(\d{1,3})%(?: Completed)? ?\|")


class Phase(NamedTuple):
    """What vLLM is at, and how much of it is done, between 0 and 1, where it says so."""

    doing: str
    fraction: float | None = None


def phase_of(line: str) -> Phase | None:
    """What a line says of the start; None for one that says nothing of it."""
    doing = next((name for mark, name in _MARKS if mark.search(line)), None)
    if doing is None:
        return None
    bar = _DONE.search(line) if doing in (_WEIGHTS, _GRAPHS) else None
    return Phase(doing, None if bar is None else min(1.0, int(bar[1]) / 100))
