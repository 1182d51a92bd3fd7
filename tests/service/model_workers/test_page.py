"""docs/adding-a-provider.md: its example is taken out of the page and run."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

import dev_opsgpt
from dev_opsgpt.service import model_workers
from dev_opsgpt.service.model_workers.base import ApiEmbeddingsParams, ApiModelWorker
from dev_opsgpt.service.model_workers.optional import optional
from dev_opsgpt.transport.server import Send

from .vendors import client_of, vendor, worker

PAGE = Path(dev_opsgpt.__file__).parents[1] / "docs" / "adding-a-provider.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def block(mark: str) -> str:
    """The one block of the page that holds a text."""
    (found,) = [block for block in BLOCKS if mark in block]
    return str(found)


def run(source: str, **names: Any) -> SimpleNamespace:
    space = {"__name__": "page", **names}
    exec(compile(source, str(PAGE), "exec"), space)
    return SimpleNamespace(**space)


async def answering(path: str, body: dict[str, Any], send: Send) -> None:
    """The API that the page's class is for."""
    said = body["dialog"][-1]["content"]
    tokens = ["Hello", ", too"] if said == "Hello" else [body["model"], f" {said}"]
    lines = [{"token": token} for token in tokens]
    lines += [{"fault": "It tripped."}] if said == "trip" else []
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    head = [(b"content-type", b"application/x-ndjson")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": data})


async def test_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    page = run(block("def do_chat"))
    monkeypatch.setattr(model_workers, "XXWorker", page.XXWorker, raising=False)
    entry = run(block('"provider": "XXWorker"')).ONLINE_LLM_MODEL["xx"]
    async with vendor(answering) as api:
        entry["api_base_url"] = api.url
        async with worker(entry, "xx") as runtime, client_of(runtime) as client:

            async def ask(text: str) -> Any:
                messages: Any = [{"role": "user", "content": text}]
                return await client.chat.completions.create(
                    model="xx", messages=messages, max_tokens=9
                )

            assert (await ask("hi")).choices[0].message.content == "xx-large hi"
            with pytest.raises(openai.APIStatusError, match="It tripped"):
                await ask("trip")
    asked = api.requests[0]
    assert asked.headers["x-token"] == "the key"
    assert asked.body["limit"] == 9


async def test_the_pages_test() -> None:
    import asyncio

    page = run(block("def do_chat") + block("def check"))
    async with vendor(answering) as api:
        await asyncio.to_thread(page.check, api.url)


def test_the_page_s_embeddings() -> None:
    page = run(block("def do_embeddings"), ApiModelWorker=ApiModelWorker)
    made = page.XXWorker(model_names=["xx"])
    assert made.can_embedding()
    found = made.do_embeddings(ApiEmbeddingsParams(texts=["ab", "c"]))
    assert found == {"code": 200, "data": [[2.0, 1.0], [1.0, 1.0]]}


def test_the_guarded_import() -> None:
    missing: dict[str, Any] = {}
    package = "dev_opsgpt.service.model_workers"
    run(block("with optional"), optional=optional, missing=missing, __package__=package)
    assert "XXWorker" in missing


def test_every_block_is_python() -> None:
    for source in BLOCKS:
        compile(source, str(PAGE), "exec")
