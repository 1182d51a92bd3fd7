"""Models whose forms have marks among their tokens, from the token ids to the calls."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM

from dev_opsgpt.engines.hf.detokenizer import Detokenizer
from dev_opsgpt.engines.hf.engine import HfEngine
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.engines.hf.sequence import Token
from dev_opsgpt.engines.hf.token_text import table_of
from dev_opsgpt.engines.text_formats.choose import SIGNS, reader_of
from dev_opsgpt.engines.text_formats.form import Form
from dev_opsgpt.engines.text_formats.harmony import HARMONY
from tests.engines.random_model import HERMES

from ..answers import ADD, WEATHER, ask
from .tiny import tiny_config, tiny_tokenizer

CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}<|start|>assistant"
    "{# <|channel|> #}"
)
FORMS = list(dict.fromkeys(sign.form for sign in SIGNS if sign.form.call))


def marks_of(form: Form) -> list[str]:
    return sorted(set(re.findall(r"<[^<>]+>|\[[A-Z_]+\]", "".join(sorted(form.marks)))))


def model(folder: Path, template: str, marks: list[str], *, special: bool) -> HfOptions:
    """A model of random weights with these tokens."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(template=template)
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": marks})
    else:
        tokenizer.add_tokens(marks)
    made = LlamaForCausalLM(tiny_config(tokenizer))
    made.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return HfOptions(path=folder, parallel=2, threads=1)


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_marks_that_are_special_tokens_are_read(form: Form) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": marks_of(form)})
    text = Detokenizer(tokenizer, table_of(tokenizer, form.marks), top=None)
    reader = reader_of(form, {"add": ADD["function"]["parameters"]})
    found = []
    for id_ in tokenizer.encode(form.written("add", {"a": 1, "b": 2}), add_special_tokens=False):
        found += reader.feed(text.feed(Token(id_)))
    calls = [call for delta in (*found, *reader.end()) for call in delta.tool_calls]
    assert calls[0].name == "add"
    assert json.loads("".join(call.arguments for call in calls)) == {"a": 1, "b": 2}


async def test_channels(tmp_path: Path) -> None:
    engine = HfEngine(model(tmp_path, CHANNELS, marks_of(HARMONY), special=True))
    await engine.start()
    try:
        for seed in range(4):
            fields: dict[str, Any] = {"seed": seed, "temperature": 1.5}
            answer = await ask(engine, tools=[ADD, WEATHER], tool_choice="required", **fields)
            assert (answer.finish, answer.content, len(answer.calls)) == ("tool_calls", "", 1)
            assert isinstance(json.loads(answer.calls[0][1]), dict)
            schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
            form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            answer = await ask(engine, response_format=form, **fields)
            assert json.loads(answer.content)["a"] == 1
            assert (await ask(engine, max_tokens=30, **fields)).finish in ("stop", "length")
    finally:
        await engine.stop()


@pytest.mark.parametrize("special", [True, False])
async def test_a_strict_tool_obeys_its_schema_once_it_is_called(
    tmp_path: Path, special: bool
) -> None:
    options = model(tmp_path, HERMES, ["<tool_call>", "</tool_call>"], special=special)
    engine = HfEngine(options)
    await engine.start()
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    begins = str(len(tiny_tokenizer()))  # the id of the first mark
    try:
        for seed in range(4):
            answer = await ask(
                engine,
                tools=[strict],
                parallel_tool_calls=False,
                seed=seed,
                temperature=1.5,
                logit_bias={begins: 100},
            )
            assert (answer.finish, len(answer.calls)) == ("tool_calls", 1)
            found = json.loads(answer.calls[0][1])
            assert set(found) == {"city"}
            assert len(found["city"]) <= 8
    finally:
        await engine.stop()
