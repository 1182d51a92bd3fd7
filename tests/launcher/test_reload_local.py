"""A local model whose options change is replaced, and somebody serves it all the time."""

import threading
from pathlib import Path

import pytest

from tests.launcher.stack import PATIENCE, Place, until

pytestmark = pytest.mark.slow


def test_local_model_is_replaced_under_load(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.start() as service:
        (pid,) = service.ready().roles("engine")
        codes: list[int] = []
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                codes.append(service.ask(max_tokens=4).status_code)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        place.values["FSCHAT_MODEL_WORKERS"]["tiny-chat"] = {"n_ctx": 512}
        assert "tiny-chat: replaced\n" in place.reload()
        until(lambda: service.roles("engine") not in ([], [pid]), "another process")
        until(lambda: len(service.roles("engine")) == 1, "the old one has ended")
        over.set()
        for thread in asking:
            thread.join(PATIENCE)
        assert set(codes) == {200}
        assert pid not in service.roles("engine")
        # One that cannot start leaves the old one as it was.
        (pid,) = service.roles("engine")
        (tmp_path / "bad.gguf").write_bytes(b"no model")
        models = place.values["llm_model_dict"]
        models["tiny-chat"] = {"local_model_path": str(tmp_path / "bad.gguf")}
        said = place.reload(ok=False)
        assert "error: tiny-chat: not replaced, the old one serves on: " in said
        until(lambda: service.roles("engine") == [pid], "only the old one is left")
        assert service.ask(max_tokens=4).status_code == 200
        # More of it, and fewer.
        models["tiny-chat"] = {"local_model_path": "tiny-chat.gguf"}
        place.reload()
        place.values["FSCHAT_MODEL_WORKERS"]["tiny-chat"]["replicas"] = 2
        assert "tiny-chat: 2 replicas" in place.reload()
        until(
            lambda: len(service.roles("engine")) == 2, "two serve, and the replaced one has ended"
        )
        del place.values["FSCHAT_MODEL_WORKERS"]["tiny-chat"]["replicas"]
        assert "tiny-chat: 1 replica\n" in place.reload()
        until(lambda: len(service.roles("engine")) == 1, "one is left")
        assert service.ask(max_tokens=4).status_code == 200
