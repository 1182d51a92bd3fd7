"""Models that see, in the real service: by the environment as by the files."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.engines.random_model import write_model
from tests.engines.vision_model import BLUE, RED, TOKENS, image, text, write_projector
from tests.support.service import AUTH, Service, serving

pytestmark = pytest.mark.slow

OWN = """
from dev_opsgpt.engines.llama_cpp_vision import LlamaCppVisionEngine


class Shy(LlamaCppVisionEngine):
    async def chat(self, request, *, index=0):
        shorter = request.model_copy(update={"max_tokens": 3})
        async for delta in super().chat(shorter, index=index):
            yield delta
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("vision")
    model, projector = write_model(folder / "m.gguf"), write_projector(folder / "mmproj.gguf")
    (folder / "shy_engine.py").write_text(OWN)
    shy = {"local_model_path": str(model), "model_type": "VL", "mmproj_path": str(projector)}
    environ = {
        "MODEL_TYPE": "VL",
        "MODEL_PATH": str(model),
        "MMPROJ_PATH": str(projector),
        "MODEL_NAME": "eyes",
        "PYTHONPATH": str(folder),
        "OPSGPT__FSCHAT_OPENAI_API__ROUTES": '{"any": {"fallbacks": ["tiny-chat", "eyes"]}}',
    }
    small = {"n_ctx": 1024, "limit_worker_concurrency": 2}
    with serving(
        folder,
        environ=environ,
        LLM_MODELs=["eyes", "shy", "tiny-chat"],
        llm_model_dict={
            "tiny-chat": {"local_model_path": "tiny-chat.gguf"},
            "shy": shy | {"engine_class": "shy_engine:Shy"},
        },
        FSCHAT_MODEL_WORKERS={"default": small, "eyes": {"max_images": 2}},
    ) as service:
        for name in ("eyes", "shy", "tiny-chat"):
            asyncio.run(service.expect(1, name))
        yield service


@pytest.fixture
def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.gateway}/v1", api_key="none", max_retries=0)


def ask(client: openai.OpenAI, *parts: dict[str, object], model: str = "eyes", **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": list(parts)}]
    asked = {"max_tokens": 12, "temperature": 0, "logit_bias": {"256": -100, "258": -100}, **more}
    return client.chat.completions.create(model=model, messages=messages, **asked)


def test_the_model_sees_through_the_gateway(client: openai.OpenAI) -> None:
    answers = [ask(client, text("look"), image(color)) for color in (RED, BLUE, RED)]
    said = [answer.choices[0].message.content for answer in answers]
    assert said[0] == said[2] != said[1]
    blind = ask(client, text("look"))
    assert answers[0].usage.prompt_tokens == blind.usage.prompt_tokens + TOKENS


def test_streamed_it_is_the_same(client: openai.OpenAI) -> None:
    whole = ask(client, image(RED), image(BLUE))
    usage = {"include_usage": True}
    chunks = list(ask(client, image(RED), image(BLUE), stream=True, stream_options=usage))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_a_bad_image_is_a_400_that_names_it(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, text("a"), image("data:image/png;base64,aGVsbG8="), stream=stream)
        assert caught.value.param == "messages.0.content.1.image_url.url"
        assert "PNG, JPEG, WebP or GIF" in caught.value.message
    with pytest.raises(openai.BadRequestError, match="at most 2"):
        ask(client, image(), image(), image())
    with pytest.raises(openai.BadRequestError, match="data: URL"):
        ask(client, image("http://169.254.169.254/latest/meta-data"))
    assert ask(client, image()).usage.completion_tokens == 12


def test_a_class_of_ones_own(client: openai.OpenAI) -> None:
    assert ask(client, image(), model="shy").usage.completion_tokens == 3


def test_a_fallback_that_cannot_see_is_passed_over(client: openai.OpenAI) -> None:
    assert ask(client, text("hello"), model="any", logit_bias=None).usage.prompt_tokens > 0
    seen, direct = ask(client, image(RED), model="any"), ask(client, image(RED))
    assert seen.choices[0].message.content == direct.choices[0].message.content


def test_the_controller_knows_who_sees(service: Service, client: openai.OpenAI) -> None:
    sees = {row["models"][0]: row["vision"] for row in service.workers()}
    assert sees == {"eyes": True, "shy": True, "tiny-chat": False}
    listed = httpx.post(f"{service.controller}/list_multimodal_models", headers=AUTH).json()
    assert sorted(listed["models"]) == ["eyes", "shy"]
    with pytest.raises(openai.BadRequestError, match="text only") as caught:
        ask(client, text("a"), image(), model="tiny-chat")
    assert caught.value.param == "messages.0.content.1"
