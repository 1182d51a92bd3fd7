"""The current openai client, sync and async, plain and streamed, strict about every answer."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

QUESTION = "Hello! What is your name? "
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
NAME = "tiny-chat"
NUMBER = {"type": "integer", "minimum": 0, "maximum": 99}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": NUMBER, "b": NUMBER},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=base_url, api_key="EMPTY", max_retries=0, _strict_response_validation=True
    ) as found:
        yield found


@pytest.fixture
async def aclient(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key="EMPTY", max_retries=0, _strict_response_validation=True
    ) as found:
        yield found


# At temperature 0, so that no luck is needed.
@pytest.mark.parametrize("model", ["tiny-chat", "example"])
def test_the_seed_s_question(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=100, temperature=0
    )
    assert NAME in (answer.choices[0].message.content or "")
    stream = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=100, temperature=0, stream=True
    )
    assert NAME in "".join(chunk.choices[0].delta.content or "" for chunk in stream)


@pytest.mark.parametrize("model", ["tiny-chat", "example"])
async def test_the_seed_s_question_async(aclient: openai.AsyncOpenAI, model: str) -> None:
    answer = await aclient.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=100, temperature=0
    )
    assert NAME in (answer.choices[0].message.content or "")
    stream = await aclient.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=100, temperature=0, stream=True
    )
    assert NAME in "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def test_completions(client: openai.OpenAI, base_url: str) -> None:
    fields: dict[str, Any] = {"model": "tiny-chat", "prompt": "I am", "max_tokens": 8}
    whole = client.completions.create(**fields, temperature=0)
    # OpenAI streams "finish_reason": null here, against its own document; so do we.
    with openai.OpenAI(base_url=base_url, api_key="EMPTY") as relaxed:
        stream = relaxed.completions.create(**fields, temperature=0, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="tiny-chat", input=["a", "b"], encoding_format="float")
    assert [len(item.embedding) for item in answer.data] == [len(answer.data[0].embedding)] * 2


async def test_models(client: openai.OpenAI, aclient: openai.AsyncOpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"tiny-chat", "tiny-chat-hf", "example"}
    assert (await aclient.models.retrieve("tiny-chat")).id == "tiny-chat"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_tools(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="tiny-chat", messages=MESSAGES, tools=[TOOL], tool_choice="required", max_tokens=200
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls
    assert message.tool_calls[0].function.name == "add"


def test_errors_are_the_client_s_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(model="tiny-chat", messages=MESSAGES, temperature=3)
    assert hot.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model="tiny-chat", messages=[{"role": "user", "content": "x " * 9000}], stream=True
        )
    assert long.value.code == "context_length_exceeded"


def test_raw_and_streaming_responses(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="tiny-chat", messages=MESSAGES, max_tokens=3
    )
    assert raw.headers["content-type"].startswith("application/json")
    with client.chat.completions.with_streaming_response.create(
        model="tiny-chat", messages=MESSAGES, max_tokens=3, stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert list(response.iter_lines())[-2] == "data: [DONE]"
