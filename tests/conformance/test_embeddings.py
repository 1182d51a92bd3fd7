"""Embeddings: vectors of length 1, the same however they are asked for."""

import asyncio
import base64
import math
import struct
from typing import Any

import httpx
import openai
import pytest

from tests.conformance.target import Can, Target

TEXTS = ["The controller knows who is alive.", "你好，世界 😀", "x"]


@pytest.fixture(autouse=True)
def _needed(target: Target) -> None:
    target.need(Can.EMBEDDINGS)


async def embed(client: openai.AsyncOpenAI, target: Target, given: Any, **fields: Any) -> Any:
    """The vectors as lists of floats, in the order of the inputs."""
    answer = await client.embeddings.create(
        model=target.model, input=given, encoding_format="float", **fields
    )
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    return [item.embedding for item in answer.data]


def near(one: list[float], other: list[float], tolerance: float = 1e-3) -> bool:
    """Whether two vectors are the same but for rounding."""
    return len(one) == len(other) and math.dist(one, other) < tolerance


async def test_vectors_have_length_one(client: openai.AsyncOpenAI, target: Target) -> None:
    vectors = await embed(client, target, TEXTS)
    assert len({len(vector) for vector in vectors}) == 1
    for vector in vectors:
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)
    assert not near(vectors[0], vectors[1], 0.01)


async def test_a_batch_is_as_its_parts(client: openai.AsyncOpenAI, target: Target) -> None:
    together = await embed(client, target, TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        (alone,) = await embed(client, target, text)
        assert near(alone, vector, 0.02)


async def test_a_large_batch(client: openai.AsyncOpenAI, target: Target) -> None:
    vectors = await embed(client, target, [f"number {i % 7}" for i in range(40)])
    assert len(vectors) == 40
    assert near(vectors[0], vectors[35], 0.02)


async def test_base64_is_the_same_numbers(
    client: openai.AsyncOpenAI,
    relaxed: openai.AsyncOpenAI,
    http: httpx.AsyncClient,
    target: Target,
) -> None:
    (floats,) = await embed(client, target, TEXTS[0])
    body = {"model": target.model, "input": TEXTS[0], "encoding_format": "base64"}
    packed = (await http.post("/embeddings", json=body)).json()["data"][0]["embedding"]
    data = base64.b64decode(packed)
    assert near(list(struct.unpack(f"<{len(floats)}f", data)), floats)
    # Without a format the openai client asks for base64 and unpacks it.
    unpacked = await relaxed.embeddings.create(model=target.model, input=TEXTS[0])
    assert near(list(unpacked.data[0].embedding), floats)


async def test_fewer_dimensions(client: openai.AsyncOpenAI, target: Target) -> None:
    (whole,) = await embed(client, target, TEXTS[0])
    (short,) = await embed(client, target, TEXTS[0], dimensions=16)
    assert math.hypot(*short) == pytest.approx(1, abs=1e-3)
    size = math.hypot(*whole[:16])
    assert near(short, [value / size for value in whole[:16]], 0.02)
    with pytest.raises(openai.BadRequestError) as error:
        await embed(client, target, TEXTS[0], dimensions=len(whole) + 1)
    assert error.value.param == "dimensions"


async def test_token_ids(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.TOKEN_IDS)
    one, two = await embed(client, target, [[70, 71, 72], [80, 81]])
    assert near((await embed(client, target, [70, 71, 72]))[0], one, 0.02)
    assert near((await embed(client, target, [80, 81]))[0], two, 0.02)


@pytest.mark.parametrize("given", ["", [], ["a", ""], [[]], [[-1]], ["a", 3], 7, "word " * 20_000])
async def test_inputs_that_are_refused(http: httpx.AsyncClient, target: Target, given: Any) -> None:
    answer = await http.post("/embeddings", json={"model": target.model, "input": given})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].split(".")[0] == "input"


async def test_the_order_is_kept(client: openai.AsyncOpenAI, target: Target) -> None:
    texts = ["longer than the others by far, so that it is read later", "b", "你好", "b", "c c c"]
    vectors = await embed(client, target, texts)
    turned = await embed(client, target, texts[::-1])
    assert all(near(a, b, 0.02) for a, b in zip(vectors, turned[::-1], strict=True))
    assert near(vectors[1], vectors[3], 0.02)
    assert not near(vectors[0], vectors[2], 0.02)


async def test_requests_at_once_are_as_alone(client: openai.AsyncOpenAI, target: Target) -> None:
    given = [[f"number {n}", "x" * (n + 1)] for n in range(12)]
    together = await asyncio.gather(*(embed(client, target, texts) for texts in given))
    for texts, vectors in zip(given[::4], together[::4], strict=True):
        alone = await embed(client, target, texts)
        assert all(near(a, b, 0.02) for a, b in zip(alone, vectors, strict=True))


async def test_a_batch_counts_the_tokens_of_its_parts(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    async def tokens(given: Any) -> int:
        made = await client.embeddings.create(
            model=target.model, input=given, encoding_format="float"
        )
        return made.usage.prompt_tokens

    assert await tokens(TEXTS) == sum([await tokens(text) for text in TEXTS])


async def test_a_batch_in_base64(http: httpx.AsyncClient, target: Target) -> None:
    def body(form: str) -> dict[str, Any]:
        return {"model": target.model, "input": TEXTS, "encoding_format": form, "dimensions": 16}

    floats, packed = [
        (await http.post("/embeddings", json=body(form))).json()["data"]
        for form in ("float", "base64")
    ]
    assert [one["index"] for one in packed] == [0, 1, 2]
    for one, other in zip(floats, packed, strict=True):
        data = base64.b64decode(other["embedding"])
        assert near(list(struct.unpack("<16f", data)), one["embedding"])


async def test_the_longest_input(client: openai.AsyncOpenAI, target: Target) -> None:
    if target.writes:
        pytest.skip("reading so much takes a model that writes too long")
    target.need(Can.TOKEN_IDS)
    longest = [70 + n % 20 for n in range(target.context)]
    (vector,) = await embed(client, target, longest)
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)
    with pytest.raises(openai.BadRequestError) as error:
        await embed(client, target, [[70], [*longest, 70]])
    assert error.value.code == "context_length_exceeded"
    assert error.value.param in ("input", "input.1")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": -3}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"input": None}, "input"),
    ],
)
async def test_fields_that_are_refused(
    http: httpx.AsyncClient, target: Target, fields: dict[str, Any], param: str
) -> None:
    body = {"model": target.model, "input": "a"} | fields
    answer = await http.post("/embeddings", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_a_model_that_reads_writes_nothing(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    if target.writes:
        pytest.skip("it writes")
    with pytest.raises(openai.BadRequestError, match="/v1/embeddings") as error:
        await client.chat.completions.create(
            model=target.model, messages=[{"role": "user", "content": "hi"}]
        )
    assert error.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
        await client.completions.create(model=target.model, prompt="hi")
