"""What stands beside an embedding model: of older and newer versions, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.engines.hf.sentence_config import SentenceConfig, Step, read_sentence_config
from dev_opsgpt.worker.engine import EngineError

OLD = "sentence_transformers.models."
NEW = "sentence_transformers.sentence_transformer.modules."


def write(folder: Path, modules: list[tuple[str, str]], **files: Any) -> Path:
    listed = [
        {"idx": place, "name": str(place), "path": path, "type": kind}
        for place, (kind, path) in enumerate(modules)
    ]
    for name, content in {"modules.json": listed, **files}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def read(folder: Path, *, causal: bool = False) -> SentenceConfig:
    return read_sentence_config(folder, causal=causal)


def test_nothing_said(tmp_path: Path) -> None:
    step = Step("Normalize", tmp_path)
    assert read(tmp_path) == SentenceConfig(tmp_path, ("mean",), steps=(step,))
    assert read(tmp_path, causal=True) == SentenceConfig(tmp_path, ("lasttoken",), steps=(step,))


def test_as_older_versions_write_it(tmp_path: Path) -> None:
    modules = [(OLD + "Transformer", "0_Transformer"), (OLD + "Pooling", "1_Pooling")]
    modules += [(OLD + "Dense", "2_Dense"), (OLD + "Dropout", "3_Dropout")]
    files = {
        "0_Transformer/sentence_bert_config.json": {"max_seq_length": 99, "do_lower_case": True},
        "1_Pooling/config.json": {
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_lasttoken": True,
            "include_prompt": False,
        },
        "2_Dense/config.json": {"in_features": 3},
        "config_sentence_transformers.json": {
            "prompts": {"query": "q: "},
            "default_prompt_name": "query",
        },
    }
    assert read(write(tmp_path, modules, **files)) == SentenceConfig(
        tmp_path / "0_Transformer",
        ("cls", "lasttoken"),
        include_prompt=False,
        steps=(Step("Dense", tmp_path / "2_Dense", {"in_features": 3}),),
        max_length=99,
        lower=True,
        prompts={"query": "q: "},
        default_prompt="query",
    )


def test_as_newer_versions_write_it(tmp_path: Path) -> None:
    modules = [("sentence_transformers.base.modules.transformer.Transformer", "")]
    modules += [(NEW + "pooling.Pooling", "1_Pooling")]
    modules += [("sentence_transformers.base.modules.normalize.Normalize", "2_Normalize")]
    files = {"1_Pooling/config.json": {"pooling_mode": ["max", "mean"], "embedding_dimension": 8}}
    found = read(write(tmp_path, modules, **files))
    assert found.folder == tmp_path
    assert found.poolings == ("max", "mean")
    assert [step.kind for step in found.steps] == ["Normalize"]
    assert (found.max_length, found.prompts, found.default_prompt) == (None, {}, None)


PLAIN = [(OLD + "Transformer", ""), (OLD + "Pooling", "1_Pooling")]


@pytest.mark.parametrize(
    ("modules", "files", "told"),
    [
        ([], {}, "begins with nothing"),
        ([(OLD + "CLIPModel", "")], {}, "begins with CLIPModel"),
        ([*PLAIN, (OLD + "CNN", "2_CNN")], {}, "not known here: CNN"),
        (PLAIN, {"1_Pooling/config.json": {"pooling_mode": "sum"}}, "pooling sum"),
        (PLAIN, {"1_Pooling/config.json": "{"}, "1_Pooling/config.json cannot be read"),
        (PLAIN, {"modules.json": "{"}, "modules.json is not a list"),
        (PLAIN, {"modules.json": [{"type": 1}]}, "modules.json is not a list"),
        (
            PLAIN,
            {"config_sentence_transformers.json": {"default_prompt_name": "no"}},
            "default_prompt_name 'no'",
        ),
    ],
)
def test_what_is_refused(
    tmp_path: Path, modules: list[tuple[str, str]], files: dict[str, Any], told: str
) -> None:
    with pytest.raises(EngineError, match=told):
        read(write(tmp_path, modules, **files))
