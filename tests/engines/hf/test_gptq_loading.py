"""Quantised checkpoints, made by examples/gptq_quantiser from a tiny Llama, against the floats that
they stand for."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gptq_quantiser import Recipe, quantise_model, write_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from dev_opsgpt.engines.hf.checkpoint import Checkpoint, find_files
from dev_opsgpt.engines.hf.gptq_kernels import could_use, with_kernels
from dev_opsgpt.engines.hf.gptq_loading import PackedCheckpoint
from dev_opsgpt.engines.hf.loading import load
from dev_opsgpt.engines.hf.options import GptqOptions, HfOptions
from dev_opsgpt.engines.hf.quantised import PackedFormat
from dev_opsgpt.worker.engine import EngineError

from .test_gptq import pack_awq
from .tiny import save, tiny_llama, tiny_tokenizer

IDS = torch.arange(3, 67)[None]
BATCHES = [
    torch.randint(0, 300, (1, 48), generator=torch.Generator().manual_seed(n)) for n in (1, 2)
]
LAYER = "model.layers.1.mlp.down_proj"
Made = tuple[Path, Tensor]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for groups of 128, in the type that GPTQ checkpoints mostly have."""
    folder = tmp_path_factory.mktemp("gptq") / "float"
    return tiny_llama(folder, dtype="float16", hidden_size=128, intermediate_size=256)


@pytest.fixture(scope="session")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe, int], Made]:
    """Makes a checkpoint and the logits of its float twin; each once."""
    kept: dict[tuple[Recipe, int], Made] = {}

    def make(recipe: Recipe, version: int) -> Made:
        if (recipe, version) not in kept:
            model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
            solved = quantise_model(model, BATCHES, recipe, lambda what, done: None)
            folder = tmp_path_factory.mktemp("gptq") / "int4"
            write_checkpoint(source, folder, model, solved, recipe, version)
            with torch.no_grad():
                kept[recipe, version] = folder, model(IDS).logits
        return kept[recipe, version]

    return make


@pytest.fixture
def damaged(made: Callable[[Recipe, int], Made], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made(Recipe(group_size=32), 1)[0], tmp_path / "damaged"))


def logits(folder: Path, **options: Any) -> Tensor:
    loaded = load(HfOptions(folder, device="cpu", **options))
    with torch.no_grad():
        found: Tensor = loaded.model(IDS).logits.float()
    return found


def change(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder: Path, message: str, gptq: GptqOptions | None = None) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        load(HfOptions(folder, device="cpu", gptq=gptq))
    assert "\n" not in str(caught.value)


VARIANTS = [
    *((Recipe(4, size), version) for size in (32, 128, -1) for version in (1, 2)),
    *((Recipe(4, size, sym=False), version) for size in (32, 128, -1) for version in (1, 2)),
    *((Recipe(4, 32, sym=sym, desc_act=True), 1) for sym in (True, False)),
    *((Recipe(4, size, desc_act=True), 2) for size in (32, 128)),
    *((Recipe(bits, 128), 1) for bits in (2, 3, 8)),
    (Recipe(3, 32, sym=False, desc_act=True), 2),
]


@pytest.mark.parametrize(("recipe", "version"), VARIANTS, ids=str)
def test_logits_are_those_of_the_float_twin(
    made: Callable[[Recipe, int], Made], recipe: Recipe, version: int
) -> None:
    folder, wanted = made(recipe, version)
    assert wanted.std() > 0.3  # so that 0.02 means something
    assert (logits(folder) - wanted).abs().max() < 0.02


def test_in_bfloat16_too(made: Callable[[Recipe, int], Made]) -> None:
    folder, wanted = made(Recipe(group_size=32), 1)
    loaded = load(HfOptions(folder, device="cpu", dtype="bfloat16"))
    assert loaded.model.dtype == torch.bfloat16
    assert (logits(folder, dtype="bfloat16") - wanted).abs().max() < 0.2
    assert (logits(folder, load_8bit=True) - wanted).abs().max() < 0.2


def test_progress_goes_from_layer_to_layer(made: Callable[[Recipe, int], Made]) -> None:
    told: list[tuple[str, float]] = []
    folder = made(Recipe(group_size=32), 1)[0]
    load(HfOptions(folder, device="cpu"), lambda text, done: told.append((text, done)))
    steps = [done for text, done in told if text == "unpacking 4-bit weights"]
    assert len(steps) > 20
    assert steps == sorted(steps)
    assert steps[-1] == 1


def test_a_checkpoint_that_says_nothing_of_itself(
    made: Callable[[Recipe, int], Made], tmp_path: Path
) -> None:
    folder, wanted = made(Recipe(group_size=32), 1)
    silent = Path(shutil.copytree(folder, tmp_path / "silent"))
    config = json.loads((silent / "config.json").read_text())
    del config["quantization_config"]
    (silent / "config.json").write_text(json.dumps(config))
    assert (logits(silent) - wanted).abs().max() < 0.02  # quantize_config.json does say it
    (silent / "quantize_config.json").unlink()
    asked = GptqOptions(4, group_size=32)
    assert (logits(silent, gptq=asked) - wanted).abs().max() < 0.02
    refused(silent, "packed weights, .* set gptq_wbits or awq_wbits")
    wrong = GptqOptions(4, group_size=128)
    refused(silent, r"down_proj\.qzeros has shape \[8, 16\], not \[2, 16\]", wrong)


@pytest.mark.parametrize("zipped", [True, False])
def test_old_files_of_torch(
    made: Callable[[Recipe, int], Made], tmp_path: Path, zipped: bool
) -> None:
    folder, wanted = made(Recipe(group_size=32), 1)
    old = Path(shutil.copytree(folder, tmp_path / "old"))
    tensors = load_file(old / "model.safetensors")
    (old / "model.safetensors").unlink()
    path = old / "llama-4bit-32g.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    assert (logits(old) - wanted).abs().max() < 0.02
    moved = tmp_path / "elsewhere.pt"
    path.rename(moved)
    asked = GptqOptions(checkpoint=str(moved))
    assert (logits(old, gptq=asked) - wanted).abs().max() < 0.02
    refused(old, "has no weights")
    refused(old, "There is no checkpoint gone.pt", GptqOptions(checkpoint="gone.pt"))
    moved.write_bytes(moved.read_bytes()[:5000])
    refused(old, "elsewhere.pt is damaged", asked)


def test_a_file_that_would_run_code(damaged: Path) -> None:
    (damaged / "model.safetensors").unlink()
    torch.save({"model": {"a": Recipe()}}, damaged / "evil.pt")
    refused(damaged, "holds more than tensors")


def test_shards(made: Callable[[Recipe, int], Made], tmp_path: Path) -> None:
    folder, wanted = made(Recipe(group_size=32, desc_act=True), 1)
    shards = Path(shutil.copytree(folder, tmp_path / "shards"))
    tensors = load_file(shards / "model.safetensors")
    (shards / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        # A layer's tensors may lie in different files.
        part = {name: tensors[name] for name in names[number::3]}
        save_file(part, shards / file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (logits(shards) - wanted).abs().max() < 0.02
    places["model.nowhere.weight"] = "model-00001-of-00003.safetensors"
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(shards, r"model\.nowhere\.weight is not in model-00001-of-00003\.safetensors")
    (shards / "model-00002-of-00003.safetensors").unlink()
    refused(shards, r"is not whole: model-00002-of-00003\.safetensors is missing")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(f"{LAYER}.scales"), f"{LAYER}.scales is missing"),
        (lambda t: t.pop(f"{LAYER}.qzeros"), f"{LAYER}.qzeros is missing"),
        (lambda t: t.pop(f"{LAYER}.qweight"), f"{LAYER}.qweight is missing"),
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing"),
        (
            lambda t: t.update({f"{LAYER}.qweight": t[f"{LAYER}.qweight"].float()}),
            f"{LAYER}.qweight is F32, not I32",
        ),
        (
            lambda t: t.update({f"{LAYER}.scales": t[f"{LAYER}.scales"].int()}),
            f"{LAYER}.scales is I32, not F16 or BF16 or F32",
        ),
        (
            lambda t: t.update({f"{LAYER}.qweight": t[f"{LAYER}.qweight"][1:].clone()}),
            f"{LAYER}.qweight has shape [31, 128], not [32, 128]",
        ),
        (
            lambda t: t.update({f"{LAYER}.scales": t[f"{LAYER}.scales"][:, :64].clone()}),
            f"{LAYER}.qweight has shape [32, 128], not [32, 64]",
        ),
        (
            lambda t: t.update({f"{LAYER}.qzeros": t[f"{LAYER}.qzeros"][0].clone()}),
            f"{LAYER}.qzeros has shape [16], not two dimensions",
        ),
        (
            lambda t: t.update({f"{LAYER}.g_idx": t[f"{LAYER}.g_idx"].half()}),
            f"{LAYER}.g_idx is F16 [256], not one row of I32",
        ),
        (
            lambda t: t[f"{LAYER}.g_idx"].__setitem__(7, 8),
            f"{LAYER}.g_idx names group 8, and there are 8 (0 to 7)",
        ),
        (
            lambda t: t[f"{LAYER}.g_idx"].__setitem__(7, -1),
            f"{LAYER}.g_idx names group -1",
        ),
        (
            lambda t: t[f"{LAYER}.scales"].__setitem__((0, 0), float("nan")),
            f"{LAYER}.scales holds numbers that are not finite",
        ),
        (
            lambda t: t.update({f"{LAYER}.bias": torch.ones(128)}),
            f"{LAYER}.bias is not zero, and the model has no bias there",
        ),
        (
            lambda t: t.update({"lm_head.weight": t["lm_head.weight"][:300].clone()}),
            "lm_head.weight has shape [300, 128], not [323, 128]",
        ),
    ],
)
def test_what_is_damaged_is_named(
    damaged: Path, edit: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    change(damaged, edit)
    refused(damaged, re.escape(message))


def test_several_faults_are_named_in_one_line(damaged: Path) -> None:
    change(damaged, lambda t: [t.pop(name) for name in sorted(t) if name.endswith("scales")])
    refused(damaged, r"layers\.0.*scales is missing; .*; and 10 more\.$")


def test_a_truncated_file(damaged: Path) -> None:
    path = damaged / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    refused(
        damaged, r"model\.safetensors is truncated: model\.\S+ and 1 more should lie beyond its end"
    )
    path.write_bytes(whole[:3000])
    refused(damaged, "it ends within its head, after 3,000 bytes")


def test_biases_of_zero_that_the_model_has_no_place_for(
    made: Callable[[Recipe, int], Made], damaged: Path
) -> None:
    change(damaged, lambda t: t.update({f"{LAYER}.bias": torch.zeros(128)}))
    assert (logits(damaged) - made(Recipe(group_size=32), 1)[1]).abs().max() < 0.02


def test_weights_that_are_not_packed_although_the_configuration_says_so(llama: Path) -> None:
    refused(llama, "holds no gptq weights", GptqOptions(4))


def test_layers_that_differ(damaged: Path, made: Callable[[Recipe, int], Made]) -> None:
    """GPTQModel's ``dynamic``: here one layer has 8 bits and larger groups."""
    other = load_file(made(Recipe(8, 128), 1)[0] / "model.safetensors")
    change(damaged, lambda t: t.update({k: v for k, v in other.items() if k.startswith(LAYER)}))
    refused(damaged, "qweight has shape")
    config = json.loads((damaged / "config.json").read_text())
    config["quantization_config"]["dynamic"] = {"+:.*1.mlp.down.*": {"bits": 8, "group_size": 128}}
    (damaged / "config.json").write_text(json.dumps(config))
    assert torch.isfinite(logits(damaged)).all()
    weight = load(HfOptions(damaged, device="cpu")).model.model.layers[1].mlp.down_proj.weight
    eight = load(HfOptions(made(Recipe(8, 128), 1)[0], device="cpu")).model
    assert torch.equal(weight, eight.model.layers[1].mlp.down_proj.weight)


def test_awq(source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "awq"))
    tensors, twin = load_file(folder / "model.safetensors"), dict[str, Tensor]()
    generator = torch.Generator().manual_seed(0)
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        outputs, inputs = tensors.pop(name).shape
        q = torch.randint(0, 16, (inputs, outputs), generator=generator)
        zeros = torch.randint(0, 16, (inputs // 32, outputs), generator=generator)
        scales = (0.02 * torch.rand(inputs // 32, outputs, generator=generator)).half()
        index = torch.arange(inputs) // 32
        twin[name] = (scales.float()[index] * (q - zeros[index])).t()
        stem = name.removesuffix("weight")
        tensors |= {stem + "qweight": pack_awq(q), stem + "qzeros": pack_awq(zeros)}
        tensors[stem + "scales"] = scales
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    said = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "version": "gemm",
        "zero_point": True,
    }
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.load_state_dict(twin, strict=False)
    with torch.no_grad():
        assert (logits(folder) - model(IDS).logits).abs().max() < 0.02
    change(folder, lambda t: t.pop(f"{LAYER}.qzeros"))
    refused(folder, rf"{LAYER}\.qzeros is missing")


def test_gpt2s_weights_lie_the_other_way_round(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=64, n_layer=1, n_head=2, n_positions=128)
    save(GPT2LMHeadModel(config), tmp_path)
    floats = AutoModelForCausalLM.from_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "transformer.h.0.mlp.c_fc"
    q = torch.randint(0, 16, (64, 256), generator=torch.Generator().manual_seed(3))
    from gptq_quantiser.packing import pack

    del tensors[f"{name}.weight"]
    tensors |= {
        f"{name}.qweight": pack(q, 4),
        f"{name}.qzeros": pack(torch.full((32, 2), 7)[:256], 4)[:2].repeat(1, 16).contiguous(),
        f"{name}.scales": torch.full((2, 256), 0.01).half(),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    said = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    config_file = tmp_path / "config.json"
    config_file.write_text(
        json.dumps(json.loads(config_file.read_text()) | {"quantization_config": said})
    )
    floats.transformer.h[0].mlp.c_fc.weight.data = torch.tensor(0.01).half().float() * (q - 8)
    with torch.no_grad():
        assert (logits(tmp_path) - floats(IDS).logits).abs().max() < 0.02


@pytest.fixture
def kernels(made: Callable[[Recipe, int], Made]) -> tuple[Any, PackedCheckpoint]:
    """A model that stands for one with other kernels: float layers of what ours unpacks."""
    folder = made(Recipe(group_size=32), 1)[0]
    model = load(HfOptions(folder, device="cpu")).model
    form = PackedFormat("gptq", 4, 32, 1)
    return model, PackedCheckpoint(folder, Checkpoint(find_files(folder)), form, model)


def test_kernels_are_used_where_they_are_right(
    kernels: tuple[Any, PackedCheckpoint], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model, packed = kernels
    assert with_kernels(packed, lambda: model) is model
    assert "GPTQModel's kernels are used for 14 layers" in caplog.text


def test_kernels_that_are_wrong_or_fail_are_not_used(
    kernels: tuple[Any, PackedCheckpoint], caplog: pytest.LogCaptureFixture
) -> None:
    model, packed = kernels
    model.get_submodule(LAYER).weight.data[5] *= 1.5
    assert with_kernels(packed, lambda: model) is None
    assert f"they are wrong for {LAYER}" in caplog.text

    def fails() -> Any:
        raise RuntimeError("no compiler")

    assert with_kernels(packed, fails) is None
    assert "not used: RuntimeError: no compiler" in caplog.text


def test_kernels_are_for_cuda_only() -> None:
    assert not could_use(PackedFormat("gptq", 4, 32, 1), torch.device("cpu"))
    assert not could_use(PackedFormat("awq", 4, 32, 0), torch.device("cuda"))
