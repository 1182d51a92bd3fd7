"""Requests at the edges of what is allowed, all at once: each behaves and none disturbs another."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dev_opsgpt.engines.hf.engine import HfEngine
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.protocol.errors import ContextLengthExceeded

from ..answers import Answer, ask, completion, finish, gather
from .tiny import tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENIZER = tiny_tokenizer()
CONTEXT = 256
ENDS = [TOKENIZER.eos_token_id, TOKENIZER.bos_token_id]
NEVER_END: dict[str, float] = {str(end): -100 for end in ENDS}
EVERY = [str(token) for token in range(len(TOKENIZER))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HfEngine]:
    """With room for three of the longest requests: some have to wait, some are thrown out."""
    folder: Path = tiny_llama(tmp_path_factory.mktemp("extremes"))
    engine = HfEngine(
        HfOptions(path=folder, parallel=8, threads=1, context=CONTEXT, cache_tokens=3 * CONTEXT)
    )
    await engine.start()
    yield engine
    await engine.stop()


GREEDY: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 1e-9},
    {"temperature": 1e-4},
    {"temperature": 2, "top_k": 1},
    {"temperature": 2, "top_p": 0},
    {"temperature": 2, "top_p": 1e-12, "top_k": 2**40},
    {"temperature": 2, "min_p": 1},
    {"temperature": 0, "top_k": -1, "top_p": 1, "min_p": 0},
]
"""Ways to ask for the likeliest token."""
WILD: list[dict[str, Any]] = [
    {"temperature": 2, "repetition_penalty": 10, "presence_penalty": 2, "frequency_penalty": 2},
    {"temperature": 1e-4, "repetition_penalty": 1e-45},
    {"temperature": 2, "repetition_penalty": 1e-30, "presence_penalty": -2},
    {"logit_bias": dict.fromkeys(EVERY, 100)},
    {"logit_bias": dict.fromkeys(EVERY, -100), "temperature": 0},
    {"logit_bias": dict.fromkeys(EVERY, -100), "repetition_penalty": 1e-45},
    {"seed": 2**63 - 1},
    {"stop": ["never " * 600, "x" * 3000, "\u4f60" * 900, "a"]},
]


def numbers(answer: Answer) -> list[float]:
    entries = [*answer.logprobs, *(top for one in answer.logprobs for top in one.top)]
    return [entry.logprob for entry in entries]


async def test_all_at_once(engine: HfEngine) -> None:
    fields: dict[str, Any] = {"max_tokens": 40, "logprobs": 5}
    alone = await finish(engine, "tell", **fields, temperature=0, logit_bias=NEVER_END)
    assert alone.usage is not None
    assert alone.usage.completion_tokens == 40

    async def greedy(given: dict[str, Any]) -> None:
        answer = await finish(engine, "tell", **fields, **given, logit_bias=NEVER_END)
        assert all(map(math.isfinite, numbers(answer)))
        assert answer.content == alone.content

    async def wild(given: dict[str, Any]) -> None:
        answer = await finish(engine, "tell", **fields, **given)
        assert answer.finish in ("stop", "length")
        assert all(map(math.isfinite, numbers(answer)))

    async def one_token() -> None:
        answer = await finish(engine, max_tokens=1, logit_bias=NEVER_END)
        assert answer.usage is not None
        assert (answer.finish, answer.usage.completion_tokens) == ("length", 1)

    async def to_the_brim() -> None:
        answer = await finish(engine, [70] * (CONTEXT - 1), logit_bias=NEVER_END)
        assert answer.usage is not None
        assert (answer.finish, answer.usage.completion_tokens) == ("length", 1)
        with pytest.raises(ContextLengthExceeded):
            await finish(engine, [70] * CONTEXT)

    async def of_nothing(prompt: Any) -> None:
        answer = await finish(engine, prompt, **fields, temperature=0, logit_bias=NEVER_END)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 40

    async def json_against_its_bias() -> None:
        banned = dict.fromkeys(EVERY, -100)
        answer = await ask(
            engine,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"const": [1, "a"]}},
            },
            logit_bias=banned,
            temperature=0,
            logprobs=True,
            top_logprobs=20,
        )
        assert json.loads(answer.content) == [1, "a"]

    async def many_choices() -> None:
        request = completion("tell", max_tokens=9, temperature=1, seed=5, logit_bias=NEVER_END)
        answers = await asyncio.gather(
            *(gather(engine.complete(request, request.prompts[0], index=i)) for i in range(64))
        )
        assert len({answer.content for answer in answers}) > 50

    special = [*ENDS, TOKENIZER.convert_tokens_to_ids("<|im_start|>")]
    await asyncio.gather(
        *(greedy(given) for given in GREEDY),
        *(wild(given) for given in WILD),
        one_token(),
        to_the_brim(),
        of_nothing(""),
        of_nothing(special),
        of_nothing(special * 20),
        of_nothing(TOKENIZER.decode(special)),
        json_against_its_bias(),
        many_choices(),
    )
    assert engine.running == 0
    again = await finish(engine, "tell", **fields, temperature=0, logit_bias=NEVER_END)
    assert again.content == alone.content
