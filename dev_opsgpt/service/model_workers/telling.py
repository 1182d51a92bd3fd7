"""What ``do_chat`` gives -> the deltas of one sequence."""

from typing import Any

import msgspec

from dev_opsgpt.protocol.errors import UpstreamFailed
from dev_opsgpt.service.model_workers.masking import Mask
from dev_opsgpt.service.model_workers.outcomes import reported
from dev_opsgpt.service.model_workers.tokens import estimate
from dev_opsgpt.worker.engine import Delta, ToolCallDelta, Usage
from dev_opsgpt.worker.openai_stream import new_call_id
from dev_opsgpt.worker.stop_strings import StopFilter

_FINISHES = {"stop", "length", "tool_calls", "content_filter"}


class ProviderAnswer:
    """Takes the dictionaries of one answer in their order and gives what is new in each.

    ``where`` names the method in errors. The stop strings are applied here, whatever the provider
    does with them.
    """

    def __init__(self, where: str, mask: Mask, stops: list[str]) -> None:
        self._where = where
        self._mask = mask
        self._stops = StopFilter(stops)
        self._items = 0
        self._text = self._reasoning = ""
        self._calls: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met: the rest of the answer is not wanted."""
        return self._stops.stopped

    def take(self, item: Any) -> Delta:
        """The news of one dictionary. Raises the error that it reports, and ``UpstreamFailed``
        where it is not what the contract says."""
        if not isinstance(item, dict) or "error_code" not in item:
            raise self._broken('gave something else than {"error_code": int, "text": str}')
        if item["error_code"] not in (0, None):
            raise reported(item, self._mask)
        self._items += 1
        self._finish = item.get("finish_reason") or self._finish
        self._usage = item.get("usage") or self._usage
        self._calls = item.get("tool_calls") or self._calls
        text, reasoning = item.get("text") or "", item.get("reasoning_content") or ""
        delta = Delta(
            content=self._news(self._text, text), reasoning=self._news(self._reasoning, reasoning)
        )
        self._text += delta.content
        self._reasoning += delta.reasoning
        return self._stops.feed(delta)

    def _news(self, known: str, given: Any) -> str:
        if not isinstance(given, str):
            raise self._broken("gave a text that is not a string")
        if given.startswith(known):
            return given[len(known) :]
        if known.startswith(given):
            # A last item often has no text, or has it without the blanks at its end.
            return ""
        raise self._broken(
            "yielded a text that does not begin with the text it yielded before: "
            "each 'text' is the whole answer so far, not the piece that is new"
        )

    def _broken(self, what: str) -> UpstreamFailed:
        return UpstreamFailed(f"{self._where} {what}.", code="bad_provider")

    def end(self, prompt_tokens: int) -> Delta:
        """The last delta. ``prompt_tokens`` is the estimate for a provider that does not count.
        Raises ``UpstreamFailed`` where nothing was given at all."""
        if not self._items:
            raise self._broken("gave no answer")
        rest = Delta() if self.stopped else self._stops.flush()
        calls = [_call(index, call) for index, call in enumerate(self._calls)]
        finish = "stop" if self.stopped else self._finish
        if finish not in _FINISHES:
            finish = "tool_calls" if calls else "stop"
        usage = self._counted(prompt_tokens)
        return msgspec.structs.replace(rest, tool_calls=calls, finish_reason=finish, usage=usage)

    def _counted(self, prompt_tokens: int) -> Usage:
        given = self._usage or {}
        asked, answered = given.get("prompt_tokens"), given.get("completion_tokens")
        if asked is None:
            asked = prompt_tokens
        if answered is None:
            answered = estimate(self._text) + estimate(self._reasoning)
        return Usage(prompt_tokens=int(asked), completion_tokens=int(answered))


def _call(index: int, call: dict[str, Any]) -> ToolCallDelta:
    function = call.get("function") or {}
    arguments = function.get("arguments") or "{}"
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return ToolCallDelta(
        index=index,
        id=call.get("id") or new_call_id(),
        name=function.get("name") or "",
        arguments=arguments,
    )
