"""One sequence of the batcher as one answer: its text, read, up to a stop string, and its usage."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from dev_opsgpt.engines.hf.detokenizer import Detokenizer
from dev_opsgpt.engines.hf.sequence import Batcher, Constraint, Sampling
from dev_opsgpt.engines.shown_text import rest, shown
from dev_opsgpt.engines.text_reader import TextReader
from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.worker.engine import Delta, Usage
from dev_opsgpt.worker.stop_strings import StopFilter


class Sequence(msgspec.Struct):
    """What is to be generated, and who reads it. ``param`` is the field that the prompt came in."""

    prompt: list[int]
    param: str
    sampling: Sampling
    text: Detokenizer
    reader: TextReader
    stops: list[str]
    constraint: Constraint | None = None


async def answer(batcher: Batcher, sequence: Sequence) -> AsyncGenerator[Delta, None]:
    """The steps of the answer. Closing it takes the sequence out of the batch."""
    usage = Usage(len(sequence.prompt), 0)
    reader, stopping = sequence.reader, StopFilter(sequence.stops)
    reason = "stop"
    steps = batcher.generate(sequence.prompt, sequence.sampling, sequence.constraint)
    async with aclosing(steps) as tokens:
        try:
            async for token in tokens:
                reason = token.finish or reason
                usage.cached_tokens = usage.cached_tokens or token.cached
                if token.id is not None:
                    usage.completion_tokens += 1
                    usage.reasoning_tokens += reader.reasoning
                for found in shown(reader.feed(sequence.text.feed(token)), stopping):
                    yield found
                if stopping.stopped or reader.done:
                    break
        except InvalidRequest as error:
            error.param = error.param or sequence.param
            raise
    for found in rest(reader, stopping):
        yield found
    finish = "stop" if stopping.stopped else reader.finish(reason)
    yield Delta(finish_reason=finish, usage=usage)
