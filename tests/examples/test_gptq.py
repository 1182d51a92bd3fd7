"""examples/gptq.py: a model quantised, loaded again, and FastChat's patch."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dev_opsgpt.engines.hf.loading import load
from dev_opsgpt.engines.hf.options import GptqOptions, HfOptions
from tests.engines.hf.tiny import tiny_llama

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.append(str(EXAMPLES))

from gptq_quantiser.solver import Recipe, round_to_nearest, solve  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("gptq") / "model", hidden_size=128)


@pytest.fixture
def example(tmp_path: Path) -> Any:
    """The module as FastChat has it: copied over its own, somewhere else."""
    copied = tmp_path / "fastchat" / "modules" / "gptq.py"
    copied.parent.mkdir(parents=True)
    copied.write_bytes((EXAMPLES / "gptq.py").read_bytes())
    spec = importlib.util.spec_from_file_location("fastchat_modules_gptq", copied)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("recipe", [Recipe(4, 32), Recipe(3, -1, sym=False, desc_act=True)])
def test_outputs_change_less_than_by_rounding_to_the_nearest(recipe: Recipe) -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 64) @ torch.randn(64, 128)  # inputs that go together
    weight = torch.randn(32, 128)
    solved = solve(weight, x.t() @ x, recipe)
    size = recipe.group_size if recipe.group_size > 0 else 128
    assert torch.equal(solved.g_idx.bincount(), torch.full((128 // size,), size))
    assert recipe.desc_act or torch.equal(solved.g_idx, (torch.arange(128) // size).int())

    def error(approximation: torch.Tensor) -> float:
        return float((x @ (weight - approximation).t()).square().mean())

    assert error(solved.weight) < 0.3 * error(round_to_nearest(weight, recipe))
    stand_for = solved.scales.float()[solved.g_idx] * (solved.q - solved.zeros[solved.g_idx])
    assert torch.equal(solved.weight, stand_for.t())


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the command writes, and what it says."""
    folder = tmp_path_factory.mktemp("gptq")
    text, out = folder / "text.txt", folder / "int4"
    text.write_text("The gateway routes bytes, the worker speaks. 模型读取消息。" * 60)
    command = [sys.executable, str(EXAMPLES / "gptq.py"), str(model), str(out), "--text", str(text)]
    options = ["--group-size", "32", "--desc-act", "--format", "gptq_v2", "--samples", "4"]
    done = subprocess.run([*command, *options, "--length", "64"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_the_command(model: Path, made: tuple[Path, str]) -> None:
    out, told = made
    assert "14 layers in 4 bits" in told
    assert "block 2 of 2" in told
    said = json.loads((out / "config.json").read_text())["quantization_config"]
    assert (said["bits"], said["desc_act"], said["checkpoint_format"]) == (4, True, "gptq_v2")
    small, large = ((folder / "model.safetensors").stat().st_size for folder in (out, model))
    assert small < 0.5 * large


def test_fastchats_patch(made: tuple[Path, str], example: Any) -> None:
    """What FastChat calls, as it calls it: ``GptqConfig`` from its command line's options."""
    folder = str(made[0])
    config = example.GptqConfig(ckpt=folder, wbits=4, groupsize=32, act_order=False)
    patched, tokenizer = example.load_gptq_quantized(folder, config)
    ours = load(HfOptions(folder, device="cpu", gptq=GptqOptions(4)))
    ids = tokenizer("The worker speaks", return_tensors="pt").input_ids
    with torch.no_grad():
        wanted = ours.model(ids).logits
        assert torch.isfinite(wanted).all()
        assert torch.equal(patched(ids).logits, wanted)
        file = example.GptqConfig(ckpt=f"{folder}/model.safetensors", wbits=4)
        assert example.find_gptq_ckpt(file) == f"{folder}/model.safetensors"
        by_file, _ = example.load_gptq_quantized(folder, file)
        assert torch.equal(by_file(ids).logits, wanted)
