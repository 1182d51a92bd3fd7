"""Parameters: what the client asked for goes before the configuration, and secrets stay hidden."""

from dev_opsgpt.service.model_workers.base import (
    ApiChatParams,
    ApiEmbeddingsParams,
    ApiModelParams,
    ApiModelWorker,
)

ENTRY = {"api_key": "secret-key-1", "temperature": 0.3, "max_tokens": 5, "own": {"api_key": "x-2"}}


def test_bound() -> None:
    asked = {"messages": [], "temperature": 0.9}
    params = ApiChatParams.bound({"m": ENTRY}, "m", asked)
    assert (params.temperature, params.max_tokens, params.api_key) == (0.9, 5, "secret-key-1")
    params.api_key = "changed"
    assert params.load_config("m") is params
    assert (params.temperature, params.api_key) == (0.9, "secret-key-1")
    assert params.load_config("unknown").worker_name == "unknown"


def test_made_by_hand() -> None:
    params = ApiChatParams(messages=[{"role": "user", "content": "hi"}]).load_config("m")
    assert (params.temperature, params.top_p, params.max_tokens) == (0.7, 1.0, None)
    assert (params.worker_name, params.api_key) == ("m", None)


def test_secrets_are_not_shown() -> None:
    params = ApiModelParams.bound({"m": ENTRY}, "m", {})
    shown = f"{params!r} {params}"
    assert "secret-key-1" not in shown
    assert "x-2" not in shown
    assert "temperature=0.3" in shown


def test_get_embeddings_in_fastchats_form() -> None:
    class Plain(ApiModelWorker):
        DEFAULT_EMBED_MODEL = "e"

        def do_embeddings(self, params: ApiEmbeddingsParams) -> object:
            return {"code": 200, "data": [[1.0] for _ in params.texts]}

    class Waiting(Plain):
        async def do_embeddings(self, params: ApiEmbeddingsParams) -> object:
            return super().do_embeddings(params)

    for cls in (Plain, Waiting):
        found = cls(["m"]).get_embeddings({"input": ["a", "b"]})
        assert found == {"embedding": [[1.0], [1.0]], "token_num": 2}
    assert Plain(["m"]).can_embedding()
    assert not ApiModelWorker(["m"]).can_embedding()
    assert ApiModelWorker(["m"]).get_embeddings({"input": []})["error_code"] == 500


def test_the_base_class() -> None:
    worker = ApiModelWorker(["m"], "http://c", "http://w", 4096, True, extra=1)
    assert (worker.context_len, worker.no_register, worker.options) == (4096, True, {"extra": 1})
    assert worker.conv.name == "m"
    assert worker.version is None
    assert worker.do_chat(ApiChatParams(messages=[]))["error_code"] == 500
    assert worker.validate_messages([{"role": "user"}]) == [{"role": "user"}]
