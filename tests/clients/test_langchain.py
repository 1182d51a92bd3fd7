"""LangChain's ChatOpenAI: invoked, streamed, with tools, with structured output."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import openai
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field, SecretStr

QUESTION = "Hello! What is your name? "
NAME = "tiny-chat"


class Sum(BaseModel):
    """Two numbers to add."""

    a: Annotated[int, Field(ge=0, le=99)]
    b: Annotated[int, Field(ge=0, le=99)]


@tool
def switch(on: bool) -> str:
    """Turns the light on or off."""
    return "on" if on else "off"


@pytest.fixture
async def model(base_url: str) -> AsyncIterator[ChatOpenAI]:
    # LangChain keeps its own HTTP clients for ever; these are closed.
    with openai.DefaultHttpxClient() as http:
        async with openai.DefaultAsyncHttpxClient() as ahttp:
            yield _model(base_url, http_client=http, http_async_client=ahttp)


def _model(base_url: str, **clients: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **clients,
        model="tiny-chat",
        base_url=base_url,
        api_key=SecretStr("EMPTY"),
        temperature=0,
        max_tokens=200,  # type: ignore[call-arg]
        max_retries=0,
    )


def test_invoke_and_stream(model: ChatOpenAI) -> None:
    answer = model.invoke(QUESTION)
    assert NAME in answer.text
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] == "stop"
    assert "".join(chunk.text for chunk in model.stream(QUESTION)) == answer.text


async def test_ainvoke_and_astream(model: ChatOpenAI) -> None:
    answer = await model.ainvoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
    chunks = [c async for c in model.astream([SystemMessage("Be brief."), HumanMessage(QUESTION)])]
    assert answer.text
    assert "".join(chunk.text for chunk in chunks) == answer.text


def test_usage_of_a_stream(model: ChatOpenAI) -> None:
    whole = model.invoke(QUESTION)
    total: AIMessageChunk | None = None
    for chunk in model.stream(QUESTION, stream_usage=True):
        assert isinstance(chunk, AIMessageChunk)
        total = chunk if total is None else total + chunk
    assert total is not None
    assert total.usage_metadata is not None
    assert whole.usage_metadata is not None
    assert total.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


@pytest.mark.parametrize("choice", ["any", "switch"])
def test_tools(model: ChatOpenAI, choice: str) -> None:
    bound = model.bind_tools([switch], tool_choice=choice)
    answer = bound.invoke("Turn the light on.")
    (call,) = answer.tool_calls  # type: ignore[attr-defined]
    assert call["name"] == "switch"
    assert isinstance(call["args"]["on"], bool)
    total: AIMessageChunk | None = None
    for chunk in bound.stream("Turn the light on."):
        assert isinstance(chunk, AIMessageChunk)
        total = chunk if total is None else total + chunk
    assert total is not None
    assert [c["args"] for c in total.tool_calls] == [call["args"]]
    result = ToolMessage(switch.invoke(call["args"]), tool_call_id=call["id"])
    after = model.bind_tools([switch]).invoke([HumanMessage("Turn it on."), answer, result])
    assert after.text or after.tool_calls  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output(model: ChatOpenAI, method: str) -> None:
    structured = model.with_structured_output(Sum, method=method)  # type: ignore[arg-type]
    assert isinstance(structured.invoke("Add 2 and 3."), Sum)
    assert isinstance(await structured.ainvoke("Add 2 and 3."), Sum)


def test_many_at_once(model: ChatOpenAI) -> None:
    answers = model.batch([QUESTION] * 8)
    assert len({answer.text for answer in answers}) == 1


def test_embeddings(base_url: str) -> None:
    embeddings = OpenAIEmbeddings(
        model="tiny-chat",
        base_url=base_url,
        api_key=SecretStr("EMPTY"),
        check_embedding_ctx_length=False,
    )
    one, two = embeddings.embed_documents(["a text", "another"])
    assert len(one) == len(two) == len(embeddings.embed_query("a text"))
