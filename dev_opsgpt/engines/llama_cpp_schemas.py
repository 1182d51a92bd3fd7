"""JSON schemas in llama.cpp: what holds the model to one, and whether it will be held.

llama.cpp drops a schema that its grammar engine cannot follow, in silence, and then generates
freely. So each new schema is tried first, on one token: a token that no JSON begins with is made
near certain, and where it still does not come, the grammar is at work.
"""

from collections import OrderedDict
from typing import Any

import msgspec

from dev_opsgpt.engines.llama_cpp_server import COMPLETIONS, LlamaServer
from dev_opsgpt.protocol.errors import ApiError, InvalidRequest

# No JSON text begins with it.
_FOREIGN = "@"
_REMEMBERED = 512
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def fixed_spacing(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the spacing fixed to ``", "`` and ``": "``. A small model that may choose
    its blanks can be caught in an endless run of them."""
    return {**schema, "x-guidance": SPACING}


class SchemaCheck:
    """Tells whether llama.cpp can follow a schema; remembers what it found."""

    def __init__(self, server: LlamaServer) -> None:
        self._server = server
        self._known: OrderedDict[bytes, str | None] = OrderedDict()
        self._token: int | None = None

    async def require(self, schema: dict[str, Any], param: str) -> None:
        """Raises ``InvalidRequest`` at ``param`` for a schema that cannot be followed."""
        await self._require({"json_schema": schema}, param)

    async def require_grammar(self, grammar: str, param: str) -> None:
        """The same for a grammar, no text of which begins with ``@``."""
        await self._require({"grammar": grammar}, param)

    async def _require(self, held: dict[str, Any], param: str) -> None:
        key = msgspec.json.encode(held)
        if key not in self._known:
            self._known[key] = await self._problem(held)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        problem = self._known[key]
        if problem is not None:
            raise InvalidRequest(
                f"The JSON schema in '{param}' cannot be followed{problem}.", param=param
            )

    async def _problem(self, held: dict[str, Any]) -> str | None:
        token = await self._foreign_token()
        try:
            found = await self._server.post(
                COMPLETIONS,
                {
                    "prompt": [token],
                    "n_predict": 1,
                    "temperature": 0,
                    "logit_bias": [(token, 1000.0)],
                    "cache_prompt": False,
                    **held,
                },
            )
        except InvalidRequest as error:
            return f": {error.message}"
        free = found["content"].strip() == _FOREIGN
        return await self._reason(held.get("json_schema")) if free else None

    async def _foreign_token(self) -> int:
        if self._token is None:
            body = {"content": _FOREIGN, "add_special": False}
            found = await self._server.post("/tokenize", body)
            self._token = int(found["tokens"][-1])
        return self._token

    async def _reason(self, schema: dict[str, Any] | None) -> str:
        """llama.cpp's other reader of schemas, the one of chat templates, may say what is wrong."""
        if schema is None:
            return ""
        try:
            messages = [{"role": "user", "content": ""}]
            await self._server.post(
                "/apply-template", {"messages": messages, "json_schema": schema}
            )
        except ApiError as error:
            _, found, reason = error.message.partition("JSON schema error at ")
            return f": {reason}" if found else ""
        return ""
