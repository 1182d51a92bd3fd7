"""What of a generated sequence a client is shown: up to a stop string, nothing that was not asked
for, no step without anything in it."""

from collections.abc import Iterator

from dev_opsgpt.engines.text_reader import TextReader
from dev_opsgpt.worker.engine import Delta
from dev_opsgpt.worker.stop_strings import StopFilter

NOTHING = Delta()


def shown(deltas: Iterator[Delta], stopping: StopFilter) -> Iterator[Delta]:
    """What may be shown of the deltas, up to a stop string."""
    for delta in deltas:
        visible = stopping.feed(delta)
        if visible != NOTHING:
            yield visible
        if stopping.stopped:
            return


def rest(reader: TextReader, stopping: StopFilter) -> Iterator[Delta]:
    """What was held back when the text ended."""
    if stopping.stopped:
        return
    yield from shown(reader.end(), stopping)
    if not stopping.stopped:
        held = stopping.flush()
        if held != NOTHING:
            yield held


def limit_logprobs(delta: Delta, wanted: int | None) -> None:
    """llama.cpp was asked for at least one of the likeliest tokens; shown is what was asked of
    us, and no entry for the token that ended the text."""
    if wanted is None:
        delta.logprobs = []
    for entry in delta.logprobs:
        entry.top = entry.top[:wanted]
