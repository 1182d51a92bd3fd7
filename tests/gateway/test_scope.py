"""What a key that is for some models sees of the others: nothing."""

from pathlib import Path
from typing import Any

from tests.support.engines import ScriptedEngine
from tests.support.stack import SECRET, Stack, running

ADMIN = {"authorization": f"Bearer {SECRET}"}


async def key_for(stack: Stack, models: list[str] | None) -> dict[str, str]:
    answer = await stack.client.post("/admin/keys", json={"models": models}, headers=ADMIN)
    return {"authorization": f"Bearer {answer.json()['key']}"}


async def test_models_of_other_keys_are_not_shown(tmp_path: Path) -> None:
    engines: dict[str, list[Any]] = {"one": [ScriptedEngine()], "two": [ScriptedEngine()]}
    async with running(engines, database_url=f"sqlite:///{tmp_path}/keys.db") as stack:
        narrow, wide = await key_for(stack, ["two"]), await key_for(stack, None)

        async def listed(key: dict[str, str]) -> list[str]:
            answer = await stack.client.get("/v1/models", headers=key)
            return [card["id"] for card in answer.json()["data"]]

        assert await listed(wide) == ["one", "two"]
        assert await listed(narrow) == ["two"]
        assert (await stack.client.get("/v1/models/two", headers=narrow)).status_code == 200
        refused = await stack.client.get("/v1/models/one", headers=narrow)
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "model_not_allowed"

        async def checked(*models: str) -> int:
            prompts = [{"model": model, "prompt": "a b", "max_tokens": 1} for model in models]
            body = {"prompts": prompts}
            answer = await stack.client.post("/api/v1/token_check", json=body, headers=narrow)
            return answer.status_code

        assert await checked("two") == 200
        assert await checked("two", "one") == 403
