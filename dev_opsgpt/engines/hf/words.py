"""A model's tokenizer, in a thread of its own: it is not made for two, and a long prompt takes it
a second."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dev_opsgpt.engines.asked import check_tokens
from dev_opsgpt.engines.hf.params import Defaults
from dev_opsgpt.engines.hf.prompt import Prompt, prompt_of
from dev_opsgpt.engines.hf.sequence import LoadedModel
from dev_opsgpt.engines.hf.template import ChatTemplate
from dev_opsgpt.protocol.openai import ChatRequest

Result = TypeVar("Result")


class Words:
    """Texts and messages -> token ids."""

    def __init__(self, loaded: LoadedModel, template: ChatTemplate, defaults: Defaults) -> None:
        self._tokenizer = loaded.tokenizer
        self._vocabulary = loaded.vocabulary
        self._template = template
        self._defaults = defaults
        self._thread = ThreadPoolExecutor(1, "tokenizer")

    async def prompt(self, request: ChatRequest) -> tuple[Prompt, list[int]]:
        """The prompt of a chat request, and its tokens. Raises ``InvalidRequest``."""
        return await self._run(self._prompt, request)

    async def ids(self, text: str | list[int], param: str) -> list[int]:
        """The tokens of a text, with those that a text begins and ends with. Raises
        ``InvalidRequest`` for ids that the model does not have."""
        if isinstance(text, str):
            return await self._run(self._encode, text, True)
        check_tokens(text, self._vocabulary, param)
        return text

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., Result], *given: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)

    def _prompt(self, request: ChatRequest) -> tuple[Prompt, list[int]]:
        prompt = prompt_of(request, self._template, self._defaults)
        # The template has written the tokens that a text begins with.
        return prompt, self._encode(prompt.text, False)

    def _encode(self, text: str, special: bool) -> list[int]:
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=special, verbose=False)
        return found
