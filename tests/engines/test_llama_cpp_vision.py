"""Images reach the model: seen in what it answers, not in what was sent."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions
from dev_opsgpt.engines.llama_cpp_images import ImageReader
from dev_opsgpt.engines.llama_cpp_vision import LlamaCppVisionEngine
from dev_opsgpt.protocol.errors import ContextLengthExceeded, InvalidRequest, Unsupported
from dev_opsgpt.worker.engine import EngineError
from dev_opsgpt.worker.image_fetch import Fetcher
from dev_opsgpt.worker.images import ImageRules

from .answers import ADD, WEATHER, Answer, ask, chat
from .random_model import write_model
from .vision_model import BLUE, RED, TOKENS, image, picture, text, url_of, write_projector

NEVER_END = {"256": -100, "258": -100}
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
OPEN = "{% for m in messages %}{{ m.content }}{% endfor %}"
BLIND = "{% for m in messages %}{{ m.role }}{% endfor %}<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_projector(tmp_path_factory.mktemp("projectors") / "mmproj.gguf")


@pytest.fixture
async def seeing(model: Path, projector: Path) -> AsyncIterator[LlamaCppVisionEngine]:
    options = LlamaOptions(path=model, context=2048, parallel=4)
    engine = LlamaCppVisionEngine(options, projector, rules=ImageRules(count=4))
    await engine.start()
    yield engine
    await engine.stop()


async def look(engine: LlamaCppEngine, *parts: dict[str, object], **fields: Any) -> Answer:
    asked = {"max_tokens": 24, "temperature": 0, "logit_bias": NEVER_END, **fields}
    return await ask(engine, list(parts) or [text("look")], **asked)


def prompt_tokens(answer: Answer) -> int:
    assert answer.usage is not None
    return answer.usage.prompt_tokens


async def test_the_model_sees_what_it_is_shown(seeing: LlamaCppVisionEngine) -> None:
    assert seeing.abilities.vision is True
    red = await look(seeing, text("look"), image(RED))
    blue = await look(seeing, text("look"), image(BLUE))
    none = await look(seeing, text("look"))
    assert len({red.content, blue.content, none.content}) == 3
    assert (await look(seeing, text("look"), image(RED))).content == red.content
    assert prompt_tokens(red) == prompt_tokens(none) + TOKENS
    assert red.usage is not None
    assert red.usage.completion_tokens == 24


async def test_several_images_and_their_order(seeing: LlamaCppVisionEngine) -> None:
    one = await look(seeing, image(RED), image(BLUE), text("x"))
    other = await look(seeing, image(BLUE), image(RED), text("x"))
    assert one.content != other.content
    assert prompt_tokens(one) == prompt_tokens(await look(seeing, text("x"))) + 2 * TOKENS
    place = await look(seeing, image(RED), text("x"), image(BLUE))
    assert place.content != one.content
    last = await look(seeing, text("x"), image(RED), image(RED))
    assert last.finish == "length"


async def test_an_image_in_an_earlier_turn(seeing: LlamaCppVisionEngine) -> None:
    def turns(color: tuple[int, int, int]) -> list[dict[str, object]]:
        return [
            {"role": "user", "content": [image(color), text("what is it?")]},
            {"role": "assistant", "content": "a colour"},
            {"role": "user", "content": "which?"},
        ]

    red = await look(seeing, messages=turns(RED))
    assert red.content != (await look(seeing, messages=turns(BLUE))).content


@pytest.mark.parametrize(
    ("form", "kind"), [("PNG", "png"), ("GIF", "gif"), ("WEBP", "webp"), ("JPEG", "jpeg")]
)
async def test_every_format_is_the_same_picture(
    seeing: LlamaCppVisionEngine, form: str, kind: str
) -> None:
    # JPEG keeps grey exactly.
    shown = url_of(picture((128, 128, 128), form), f"image/{kind}")
    plain = await look(seeing, image((128, 128, 128)))
    found = await look(seeing, image(shown))
    if form == "WEBP":  # lossy
        assert found.finish == "length"
    else:
        assert found.content == plain.content


async def test_with_logprobs_and_stops(seeing: LlamaCppVisionEngine) -> None:
    fields: dict[str, Any] = {"logit_bias": {"97": 40.0, "98": 40.0}, "max_tokens": 30}
    answer = await look(seeing, image(RED), logprobs=True, top_logprobs=2, **fields)
    assert len(answer.logprobs) == 30
    assert all(len(entry.top) == 2 for entry in answer.logprobs)
    assert answer.content == "".join(entry.token for entry in answer.logprobs)
    whole = await look(seeing, image(RED), **fields)
    stop = whole.content[10:14]
    cut = await look(seeing, image(RED), stop=stop, **fields)
    assert cut.content == whole.content[: whole.content.find(stop)]
    assert cut.finish == "stop"


async def test_json_is_enforced_with_an_image(seeing: LlamaCppVisionEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 999}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    answers = []
    for color in (RED, BLUE):
        answer = await look(seeing, image(color), response_format=form, logit_bias=None)
        assert set(json.loads(answer.content)) == {"n"}
        answers.append(prompt_tokens(answer))
    without = await look(seeing, response_format=form, logit_bias=None)
    assert answers[0] == answers[1] > prompt_tokens(without)
    free = {"type": "json_object"}
    answer = await look(seeing, image(RED), response_format=free, logit_bias=None, max_tokens=200)
    assert answer.finish == "length" or isinstance(json.loads(answer.content), dict)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
async def test_calls_are_forced_with_an_image(seeing: LlamaCppVisionEngine, choice: Any) -> None:
    fields = {"tools": [WEATHER, ADD], "tool_choice": choice, "logit_bias": None, "seed": 3}
    answer = await look(seeing, image(RED), temperature=1.0, max_tokens=300, **fields)
    assert answer.finish in ("tool_calls", "length")
    (call,) = answer.calls
    assert call[0] in ("get_weather", "add")
    if choice != "required":
        assert call[0] == "add"
    if answer.finish == "tool_calls":
        assert isinstance(json.loads(call[1]), dict)


async def test_tools_that_may_be_called(seeing: LlamaCppVisionEngine) -> None:
    red = await look(seeing, image(RED), tools=[WEATHER])
    blue = await look(seeing, image(BLUE), tools=[WEATHER])
    assert red.content != blue.content
    assert prompt_tokens(red) > 100


async def test_tokens_are_counted(seeing: LlamaCppVisionEngine) -> None:
    parts = [text("hello"), image(RED)]
    assert await seeing.count_tokens(chat(parts)) == prompt_tokens(await look(seeing, *parts))
    assert await seeing.count_tokens(chat("hello")) == prompt_tokens(
        await look(seeing, text("hello"))
    )


async def test_at_the_same_time(seeing: LlamaCppVisionEngine) -> None:
    alone = {color: (await look(seeing, image(color))).content for color in (RED, BLUE)}
    colors = [RED, BLUE] * 4
    together = await asyncio.gather(*(look(seeing, image(color)) for color in colors))
    assert [answer.content for answer in together] == [alone[color] for color in colors]
    assert await seeing.running() == 0


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (image(url_of(picture()[:60])), "damaged or incomplete"),
        (image(url_of(b"hello")), "is not an image"),
        (image("data:image/png;base64,?!"), "not valid base64"),
        (image("data:image/png,abc"), "must hold base64"),
        (image("data:text/plain;base64,aGk="), "must be of an image"),
        (image("http://127.0.0.1/a.png"), "must be given as a data: URL"),
        (image("file:///etc/passwd"), "must be given as a data: URL"),
        (image(url_of(picture(size=(9000, 6000)))), "9000 x 6000 pixels"),
    ],
)
async def test_a_bad_image_is_named(
    seeing: LlamaCppVisionEngine, part: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        await look(seeing, text("see"), image(), part)
    assert caught.value.param == "messages.0.content.2.image_url.url"
    assert caught.value.status == 400
    assert (await look(seeing, image())).finish == "length"  # it lives


async def test_what_else_is_refused(seeing: LlamaCppVisionEngine, engine: LlamaCppEngine) -> None:
    with pytest.raises(InvalidRequest, match="at most 4") as many:
        await look(seeing, *[image() for _ in range(5)])
    assert many.value.param == "messages.0.content.4.image_url.url"
    with pytest.raises(Unsupported, match="role 'system'") as role:
        await look(seeing, messages=[{"role": "system", "content": [image()]}])
    assert role.value.param == "messages.0.content.0"
    sound = {"type": "input_audio", "input_audio": {}}
    with pytest.raises(Unsupported, match="text and images"):
        await look(seeing, sound)
    with pytest.raises(Unsupported, match="text only") as blind:
        await look(engine, text("a"), image())
    assert blind.value.param == "messages.0.content.1"
    assert engine.abilities.vision is False


async def test_more_than_the_context(model: Path, projector: Path) -> None:
    options = LlamaOptions(path=model, context=256, parallel=1)
    engine = LlamaCppVisionEngine(options, projector)
    await engine.start()
    try:
        with pytest.raises(ContextLengthExceeded, match="256 tokens"):
            await look(engine, image(), text("x" * 250))
        assert (await look(engine, image(), max_tokens=1)).finish == "length"
    finally:
        await engine.stop()


async def test_other_templates(tmp_path: Path, projector: Path) -> None:
    plain = write_model(tmp_path / "plain.gguf", template=PLAIN)
    engine = LlamaCppVisionEngine(LlamaOptions(path=plain, context=512, parallel=1), projector)
    await engine.start()
    try:
        red = await look(engine, image(RED), text("x"))
        assert red.content != (await look(engine, image(BLUE), text("x"))).content
    finally:
        await engine.stop()
    # llama.cpp aborts over a prompt that ends in an image.
    ending = write_model(tmp_path / "ending.gguf", template=OPEN)
    engine = LlamaCppVisionEngine(LlamaOptions(path=ending, context=512, parallel=1), projector)
    await engine.start()
    try:
        with pytest.raises(InvalidRequest, match="let text follow"):
            await look(engine, text("x"), image(RED))
        assert (await look(engine, image(RED), text("x"))).finish == "length"
    finally:
        await engine.stop()


async def test_projectors_of_gemma(model: Path, tmp_path: Path) -> None:
    projector = write_projector(tmp_path / "gemma.gguf", "gemma3")
    engine = LlamaCppVisionEngine(LlamaOptions(path=model, context=512, parallel=1), projector)
    await engine.start()
    try:
        red = await look(engine, image(RED))
        assert red.content != (await look(engine, image(BLUE))).content
    finally:
        await engine.stop()


async def test_projectors_that_do_not_fit(model: Path, projector: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(projector.read_bytes()[:-1000])
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"hello" * 100)
    wide = write_projector(tmp_path / "wide.gguf", model_width=32)
    unknown = write_projector(tmp_path / "unknown.gguf", "nobody")
    blind = write_model(tmp_path / "blind.gguf", template=BLIND)
    cases = [
        (model, tmp_path / "gone.gguf", "projector file .*gone.gguf does not exist"),
        (model, tmp_path, "is a folder"),
        (model, cut, "projector file .*cut.gguf is truncated"),
        (model, junk, "is not a GGUF file"),
        (model, model, "is no projector"),
        (model, wide, "does not match it .*32 numbers, the model takes 64"),
        (model, unknown, "with the projector .*unknown.gguf"),
        (blind, projector, "chat template of .* leaves images out"),
    ]
    for path, other, words in cases:
        engine = LlamaCppVisionEngine(LlamaOptions(path=path, context=256, parallel=1), other)
        with pytest.raises(EngineError, match=words) as error:
            await engine.start()
        assert "\n" not in str(error.value)
        await engine.stop()


class Shelf(Fetcher):
    """Gives pictures that are fetched from nowhere."""

    async def fetch(self, url: str, path: str) -> bytes:
        return picture(BLUE) if url.endswith("blue.png") else b"hello"


async def test_images_by_address(model: Path, projector: Path) -> None:
    options, rules = LlamaOptions(path=model, context=512, parallel=1), ImageRules(addresses=True)
    engine = LlamaCppVisionEngine(options, projector, rules=rules)
    engine._images = ImageReader(rules, Shelf(rules.size))
    await engine.start()
    try:
        fetched = await look(engine, image("https://example.com/blue.png"))
        assert fetched.content == (await look(engine, image(BLUE))).content
        with pytest.raises(InvalidRequest, match="is not an image") as caught:
            await look(engine, image("https://example.com/red.png"))
        assert caught.value.param == "messages.0.content.0.image_url.url"
    finally:
        await engine.stop()
    engine = LlamaCppVisionEngine(options, projector, rules=rules)
    await engine.start()
    try:
        with pytest.raises(InvalidRequest, match="not a public one"):
            await look(engine, image("http://localhost:1/a.png"))
    finally:
        await engine.stop()
