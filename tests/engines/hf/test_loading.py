"""Models in float, in 8 bits and on their way; and folders that are no model."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from dev_opsgpt.engines.hf import weights
from dev_opsgpt.engines.hf.int8 import Int8Linear, quantise, to_int8
from dev_opsgpt.engines.hf.loading import load
from dev_opsgpt.engines.hf.options import GptqOptions, HfOptions
from dev_opsgpt.worker.engine import EngineError

from .tiny import CONTEXT, save, tiny_llama, tiny_tokenizer

IDS = torch.arange(3, 43)[None]
TINY_CHAT = Path(__file__).parents[3] / "llm_models" / "tiny-chat"


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def refused(folder: Path | str, message: str, **options: Any) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        load(HfOptions(folder, **{"device": "cpu"} | options))
    assert "\n" not in str(caught.value)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_model_is_what_transformers_loads(llama: Path) -> None:
    told: list[tuple[str, float]] = []
    loaded = load(HfOptions(llama, device="cpu"), lambda text, done: told.append((text, done)))
    theirs = AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, theirs(IDS).logits)
    assert not loaded.model.training
    assert loaded.context_length == CONTEXT
    assert loaded.end_tokens == {0, 2}
    assert loaded.vocabulary == len(loaded.tokenizer) == 323
    assert loaded.device == torch.device("cpu")
    assert loaded.model.generation_config.pad_token_id == 0
    assert told[0][0] == "reading weights"
    assert told[-1] == ("reading weights", 1)


def test_a_path_may_be_a_string_and_the_context_shorter(llama: Path) -> None:
    loaded = load(HfOptions(str(llama), context=100, device="auto"))
    assert loaded.context_length == 100


def test_the_embedded_model_with_tied_weights() -> None:
    loaded = load(HfOptions(TINY_CHAT, device="cpu", dtype="bfloat16"))
    theirs = AutoModelForCausalLM.from_pretrained(TINY_CHAT, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, theirs(IDS).logits)
    model = loaded.model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_experts_are_put_together(tmp_path: Path) -> None:
    """A mixture's experts are many tensors on disk and one in the model."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
    )
    model = Qwen3MoeForCausalLM(config).eval()
    save(model, tmp_path)
    assert any("experts.3." in name for name in load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        found = load(HfOptions(tmp_path, device="cpu")).model(IDS).logits
        assert (found - model(IDS).logits).abs().max() < 1e-5


def test_shards_and_old_files(llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)
    shards = save(model, tmp_path / "shards", max_shard_size="100KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    old = Path(shutil.copytree(llama, tmp_path / "old"))
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    with torch.no_grad():
        for folder in (shards, old):
            found = load(HfOptions(folder, device="cpu")).model(IDS).logits
            assert torch.equal(found, model(IDS).logits)


@pytest.mark.parametrize(
    ("stored", "asked", "found"),
    [
        ("float32", None, torch.float32),
        ("float32", "bfloat16", torch.bfloat16),
        ("float16", None, torch.float32),
        ("bfloat16", "float32", torch.float32),
    ],
)
def test_types(tmp_path: Path, stored: str, asked: str | None, found: torch.dtype) -> None:
    folder = tiny_llama(tmp_path, dtype=stored)
    model = load(HfOptions(folder, device="cpu", dtype=asked)).model
    assert {parameter.dtype for parameter in model.parameters()} == {found}


@pytest.mark.parametrize("can", [True, False])
def test_bfloat16_where_the_processor_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    monkeypatch.setattr("dev_opsgpt.engines.hf.devices._computes_bfloat16", lambda device: can)
    folder = tiny_llama(tmp_path, dtype="bfloat16")
    model = load(HfOptions(folder, device="cpu")).model
    assert model.dtype == (torch.bfloat16 if can else torch.float32)


def test_eight_bits_against_the_float_model(llama: Path) -> None:
    told: list[str] = []
    options = HfOptions(llama, device="cpu", load_8bit=True)
    model = load(options, lambda text, done: told.append(text)).model
    floats = load(HfOptions(llama, device="cpu")).model
    layers = [module for module in model.modules() if isinstance(module, Int8Linear)]
    assert len(layers) == 14
    assert all(layer.weight.dtype == torch.int8 for layer in layers)
    assert type(model.lm_head) is torch.nn.Linear  # a small error there changes a choice
    assert "rounding to 8 bits" in told
    with torch.no_grad():
        wanted, found = floats(IDS).logits, model(IDS).logits
    apart = (found - wanted).abs()
    assert apart.max() < 0.15 * wanted.std()
    assert apart.mean() < 0.03 * wanted.std()


def test_eight_bits_do_not_depend_on_the_neighbours(llama: Path) -> None:
    model = load(HfOptions(llama, device="cpu", load_8bit=True)).model
    other = torch.randint(0, 300, IDS.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone, together = model(IDS).logits[0], model(torch.cat([IDS, other])).logits[0]
    assert (alone - together).abs().max() < 1e-4


def test_rounding_to_eight_bits() -> None:
    weight = torch.tensor([[1.27, -0.5, 0.004], [0.0, 0.0, 0.0]])
    values, scale = quantise(weight)
    assert values.tolist() == [[127, -50, 0], [0, 0, 0]]
    assert scale[0] == pytest.approx(0.01)
    linear = torch.nn.Linear(3, 2)
    linear.weight.data = weight
    model = torch.nn.ModuleDict({"a": linear, "b": torch.nn.Linear(2, 2)})
    x = torch.randn(5, 3)
    wanted = linear(x)
    assert to_int8(model, model["b"], lambda done: None) == 1
    assert isinstance(model["a"], Int8Linear)
    assert (model["a"](x) - wanted).abs().max() < 0.02


@pytest.mark.parametrize("inputs", [64, 24])
@pytest.mark.parametrize("rows", [5, 40])  # few rows of whole vectors have a kernel of their own
def test_eight_bits_in_bfloat16(inputs: int, rows: int) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(inputs, 6)
    layer, x = Int8Linear(linear), torch.randn(1, rows, inputs).bfloat16()
    found = layer(x)
    assert found.dtype == torch.bfloat16
    assert found.shape == (1, rows, 6)
    assert (found.float() - linear(x.float())).abs().max() < 0.05


def test_threads(llama: Path) -> None:
    before = torch.get_num_threads()
    try:
        load(HfOptions(llama, device="cpu", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_paths_that_are_no_model(tmp_path: Path, llama: Path) -> None:
    refused(tmp_path / "gone", "There is no folder .*gone")
    refused(str(tmp_path / "gone"), "There is no folder .*gone")
    refused("gone", "There is no folder gone")
    refused(llama / "config.json", "is a file; a model in Hugging Face format is a folder")
    refused(tmp_path, r"has no config\.json")


def unlink(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write("config.json", b"{"), r"config\.json cannot be read"),
        (write("config.json", b"[]"), "does not hold a JSON object"),
        (lambda f: edit_json(f / "config.json", model_type="lemma"), "no architecture 'lemma'"),
        (write("config.json", b"{}"), "no architecture 'none named'"),
        (lambda f: edit_json(f / "config.json", hidden_size="wide"), r"config\.json is not under"),
        (
            lambda f: edit_json(f / "config.json", num_attention_heads=3),
            r"(no model can be made from its|its) config\.json",
        ),
        (
            lambda f: edit_json(f / "config.json", hidden_size=32),
            r"embed_tokens\.weight has shape \[323, 64\], not \[323, 32\]",
        ),
        (
            lambda f: edit_json(f / "config.json", num_hidden_layers=3),
            r"damaged: model\.layers\.2\.\S+ is missing; .* and 5 more",
        ),
        (unlink("model.safetensors"), "has no weights"),
        (write("model.safetensors", b""), "it ends within its head, after 0 bytes"),
        (write("model.safetensors", b"x" * 4000), "ends within its head"),
        (write("model.safetensors", b"\x02" + 7 * b"\0" + b"no"), "its head is not JSON"),
        (write("model.safetensors", b"\x02" + 7 * b"\0" + b"[]"), "does not describe tensors"),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-10]
            ),
            r"is truncated: model\.\S+ should lie beyond its end",
        ),
        (
            lambda f: (
                (f / "model.safetensors").unlink()
                or torch.save({"a": print}, f / "pytorch_model.bin")
            ),
            "holds more than tensors",
        ),
        (write("generation_config.json", b"[1"), r"generation_config\.json cannot be read"),
        (
            lambda f: edit_json(f / "generation_config.json", max_new_tokens=-5),
            r"generation_config\.json is not understood",
        ),
        (write("model.safetensors.index.json", b"{}"), "it has no weight_map"),
        (unlink("tokenizer.json"), r"The tokenizer of .* cannot be read|has no tokenizer"),
        (write("tokenizer.json", b"{}"), r"The tokenizer of .* cannot be read"),
        (
            lambda f: (f / "tokenizer.json").unlink() or (f / "tokenizer_config.json").unlink(),
            "has no tokenizer",
        ),
    ],
)
def test_a_damaged_folder(copy: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(copy)
    refused(copy, message)


def test_a_tensor_of_another_length_than_its_shape(copy: Path) -> None:
    path = copy / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"shape":[323,64]', b'"shape":[323,65]', 1))
    refused(copy, r"\S+ has [\d,]+ bytes, which is not F32 \[323, 65\]")


def test_what_the_model_has_no_place_for_is_told(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"model.extra.weight": torch.ones(3)}, copy / "model.safetensors")
    load(HfOptions(copy, device="cpu"))
    assert "1 tensors that the model has no place for: model.extra.weight" in caplog.text


def test_models_that_do_not_write(tmp_path: Path) -> None:
    small: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=100, intermediate_size=32, **small)).save_pretrained(tmp_path)
    refused(tmp_path, r"writes text \(BertModel\); it serves embeddings or rerank")
    t5 = T5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(t5).save_pretrained(tmp_path / "t5")
    refused(tmp_path / "t5", "type 't5' is no causal language model")


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_models_own_code_runs_only_where_that_is_allowed(copy: Path) -> None:
    (copy / "modeling_own.py").write_text(OWN_CODE)
    edit_json(
        copy / "config.json",
        model_type="own",
        architectures=["OwnForCausalLM"],
        auto_map={
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        },
    )
    refused(copy, r'Python code that comes with the model.*\["trust_remote_code"\] = True')
    loaded = load(HfOptions(copy, device="cpu", trust_remote_code=True))
    assert type(loaded.model).__name__ == "OwnForCausalLM"
    with torch.no_grad():
        assert torch.isfinite(loaded.model(IDS).logits).all()


def test_a_model_larger_than_memory(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "available_memory", lambda: 100_000)
    read: list[str] = []
    with pytest.raises(EngineError, match=r"does not fit into memory: its weights need 0\.0 Gi"):
        load(HfOptions(llama, device="cpu"), lambda text, done: read.append(text))
    assert not read


def test_a_file_larger_than_what_can_be_mapped(copy: Path) -> None:
    """A file of holes, of more than a terabyte: systems refuse to map it."""
    wide = 2**17
    edit_json(copy / "config.json", hidden_size=wide, intermediate_size=4 * wide)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(copy))
    head, end = {}, 0
    for name, tensor in model.state_dict().items():
        begin, end = end, end + 4 * tensor.numel()
        head[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    told = json.dumps(head).encode()
    with (copy / "model.safetensors").open("wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        file.truncate(8 + len(told) + end)
    refused(copy, r"does not fit into memory: its weights need \d{3,}")


def test_settings_that_mean_nothing(llama: Path) -> None:
    refused(llama, "dtype 'float8' is none of auto, float32", dtype="float8")
    refused(llama, "device 'tpu' is none of auto", device="tpu")
    refused(llama, "holds no gptq weights", gptq=GptqOptions(4))
    refused(llama, re.escape("max_gpu_memory 'much' is not a size"), max_gpu_memory="much")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(llama: Path) -> None:
    refused(llama, 'device is "cuda", and this machine has none', device="cuda")


def test_another_way_of_quantising_is_left_to_transformers(copy: Path) -> None:
    said = {"quant_method": "hqq", "quant_config": {}}
    edit_json(copy / "config.json", quantization_config=said)
    refused(copy, "could not be loaded: ")
    refused(copy, "load_8bit is set, and the checkpoint is quantised already", load_8bit=True)
