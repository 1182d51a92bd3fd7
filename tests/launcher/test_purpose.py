"""What a model is for, and the request that is suggested for it when the service has started."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gguf import PoolingType

from dev_opsgpt.config import Settings
from dev_opsgpt.launcher.purpose import purpose_of
from tests.engines.random_reranker import write_reranker
from tests.launcher.stack import Place


def purpose(path: Path | str, **model: Any) -> str:
    declared = {"local_model_path": str(path), **model}
    settings = Settings.model_validate({"llm_model_dict": {"m": declared}})
    return purpose_of(settings.plan_for("m"))


def folder(at: Path, config: dict[str, Any] | None, *files: str) -> Path:
    at.mkdir()
    if config is not None:
        (at / "config.json").write_text(json.dumps(config))
    for name in files:
        (at / name).write_text("[]")
    return at


def test_what_the_files_say(tmp_path: Path) -> None:
    assert purpose("tiny-chat.gguf") == purpose("tiny-chat") == "chat"
    assert purpose(write_reranker(tmp_path / "r.gguf")) == "rerank"
    vectors = write_reranker(tmp_path / "v.gguf", pooling=PoolingType.MEAN)
    assert purpose(vectors) == "embeddings"
    bert = folder(tmp_path / "bert", {"architectures": ["BertModel"]})
    assert purpose(bert) == "embeddings"
    qwen = folder(tmp_path / "qwen", {"architectures": ["Qwen3ForCausalLM"]}, "modules.json")
    assert purpose(qwen) == "embeddings"
    scores = folder(tmp_path / "c", {"architectures": ["BertForSequenceClassification"]})
    assert purpose(scores) == "rerank"


def test_what_nobody_knows_is_for_chats(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    assert purpose(broken) == "chat"
    assert purpose(tmp_path / "gone.gguf") == "chat"
    assert purpose(folder(tmp_path / "empty", None)) == "chat"
    assert purpose("owner/name", engine="transformers") == "chat"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("pooling", [PoolingType.RANK, PoolingType.MEAN])
def test_what_is_suggested_works(tmp_path: Path, pooling: PoolingType) -> None:
    path = write_reranker(tmp_path / "small.gguf", pooling=pooling)
    models = {"small": {"local_model_path": str(path)}}
    place = Place(tmp_path, LLM_MODEL="small", LLM_MODELs=["small"], llm_model_dict=models)
    with place.start() as service:
        line = next(x for x in service.ready().lines if x.startswith("curl "))
        words = [*shlex.split(line), "-sS", "--noproxy", "*", "--max-time", "20"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        found = answer["results" if pooling is PoolingType.RANK else "data"]
        assert len(found) == (2 if pooling is PoolingType.RANK else 1), answer
