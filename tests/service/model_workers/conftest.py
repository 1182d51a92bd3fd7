"""A vendor that speaks OpenAI's dialect, a worker in front of it, and OpenAI's own client."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from dev_opsgpt.worker.runtime import WorkerRuntime

from .vendors import KEY, Vendor, client_of, openai_dialect, vendor, worker


@pytest.fixture
async def api() -> AsyncIterator[Vendor]:
    async with vendor(openai_dialect) as found:
        yield found


@pytest.fixture
def entry(api: Vendor) -> dict[str, Any]:
    return {
        "version": "gpt-x",
        "api_base_url": f"{api.url}/v1",
        "api_key": KEY,
        "provider": "ExampleWorker",
    }


@pytest.fixture
async def runtime(entry: dict[str, Any]) -> AsyncIterator[WorkerRuntime]:
    async with worker(entry) as found:
        yield found


@pytest.fixture
async def client(runtime: WorkerRuntime) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(runtime) as found:
        yield found
