"""What must hold of answers that are JSON or calls, in a process of its own where it is run so:
``python -m tests.engines.json_or_calls model.gguf mark`` with a model whose last token is the mark
of a call."""

import asyncio
import json
import sys
from pathlib import Path

from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions
from tests.engines.answers import WEATHER, ask
from tests.engines.random_model import VOCABULARY

PING = {"type": "function", "function": {"name": "ping"}}
FORM = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"enum": ["x", 5]}}}


async def json_or_calls(engine: LlamaCppEngine, begins: dict[str, float]) -> None:
    """``begins`` are biases that make the model begin a call."""
    kinds = set()
    for seed in range(16):
        answer = await ask(
            engine,
            tools=[WEATHER, PING],
            response_format=FORM,
            seed=seed,
            temperature=1.5,
            logit_bias=begins if seed % 2 else None,
            parallel_tool_calls=False,
            max_tokens=300,
        )
        kinds.add(answer.finish)
        if answer.finish == "stop":
            assert json.loads(answer.content) in ("x", 5)
            assert answer.calls == []
        else:
            assert (answer.finish, answer.content) == ("tool_calls", "")
            ((name, arguments),) = answer.calls
            assert set(json.loads(arguments)) == ({"city"} if name == "get_weather" else set())
    assert kinds == {"stop", "tool_calls"}


async def _marked(path: Path, mark: str) -> None:
    engine = LlamaCppEngine(LlamaOptions(path=path, parallel=1))
    await engine.start()
    try:
        await json_or_calls(engine, {str(VOCABULARY): 30.0})
        if mark == "<tool_call>":
            bias = {str(VOCABULARY): 100.0}
            seen = await ask(engine, tools=[PING], logit_bias=bias, max_tokens=2)
            assert seen.content == 2 * mark
    finally:
        await engine.stop()


if __name__ == "__main__":
    asyncio.run(_marked(Path(sys.argv[1]), sys.argv[2]))
