"""Whether models load right on a GPU: packed, in 8 bits, under a cap of memory.

    python -m benchmarks.engines.gpu_check            # device cuda
    python -m benchmarks.engines.gpu_check --device cpu --small

prints one line of JSON a case: how far the logits are from those of the same model on the CPU (in
8 bits, of those in 8 bits there; of a packed model, of its float twin in the same type), how far
they may be, what memory it took. It ends with 1 where a case is further. It needs
torch, transformers, safetensors, msgspec and pydantic, and none of the server's parts.
"""

import argparse
import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dev_opsgpt.engines.hf.loading import load
from dev_opsgpt.engines.hf.options import HfOptions

VOCABULARY = 256
IDS = torch.arange(3, 131)[None] % VOCABULARY
# The GPTQ cases: bits, inputs of a group, symmetric, in order of activation, version.
PACKED = [
    (4, 128, True, False, 1),
    (4, 32, False, True, 1),
    (4, 128, False, False, 2),
    (4, -1, True, True, 2),
    (3, 128, True, False, 1),
    (8, 32, True, False, 1),
]


def make_model(folder: Path, width: int, layers: int) -> Path:
    """A Llama of random weights in float32, with a tokenizer of single bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, eos_token=letters[0]).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.06,
        eos_token_id=0,
        bos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def pack_model(source: Path, folder: Path, case: tuple[int, int, bool, bool, int]) -> Any:
    """Writes a GPTQ checkpoint of ``source`` and gives its float twin, on the CPU."""
    quantiser: Any = import_module("gptq_quantiser")  # examples/ is no package
    bits, size, sym, desc_act, version = case
    recipe = quantiser.Recipe(bits, size, sym, desc_act)
    model = load(HfOptions(source, device="cpu", dtype="float32")).model
    random = torch.Generator().manual_seed(1)
    texts = [torch.randint(0, VOCABULARY, (1, 128), generator=random) for _ in range(2)]
    solved = quantiser.quantise_model(model, texts, recipe, lambda what, done: None)
    quantiser.write_checkpoint(source, folder, model, solved, recipe, version)
    return model


def logits(model: Any) -> Tensor:
    """What a model gives for the ids that every case is asked, float32 on the CPU."""
    device = model.get_input_embeddings().weight.device
    if device.type == "meta":  # kept in the machine's memory until it is used
        device = torch.device("cuda", 0)
    with torch.no_grad():
        found: Tensor = model(IDS.to(device)).logits
    return found.float().cpu()


def check(name: str, options: HfOptions, wanted: Tensor, tolerance: float) -> dict[str, Any]:
    """Loads a model and compares."""
    cuda = options.device == "cuda"
    if cuda:
        # What the case before has left would count against this one's cap.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        loaded = load(options)
        seconds = time.perf_counter() - start
        apart = (logits(loaded.model) - wanted).abs().max().item()
    except Exception as error:  # told as a case that failed, and the others go on
        return {"case": name, "ok": False, "error": f"{type(error).__name__}: {error}"}
    tensors = chain(loaded.model.parameters(), loaded.model.buffers())
    return {
        "case": name,
        "ok": apart <= tolerance,
        "apart": round(apart, 6),
        "tolerance": tolerance,
        "spread_of_logits": round(wanted.std().item(), 3),
        "load_s": round(seconds, 2),
        "devices": sorted({str(tensor.device) for tensor in tensors}),
        "dtype": str(loaded.model.dtype),
        "gpu_peak_mib": round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None,
    }


def cases(folder: Path, device: str, width: int) -> Iterator[dict[str, Any]]:
    """Every case, one after the other."""
    source = make_model(folder / "float", width, 2)
    base = HfOptions(source, device=device)
    wanted = logits(load(HfOptions(source, device="cpu")).model)
    yield check("float32", base, wanted, 0.01)
    yield check("bfloat16", replace(base, dtype="bfloat16"), wanted, 0.3)
    rounded = logits(load(HfOptions(source, device="cpu", load_8bit=True)).model)
    yield check("8 bits", replace(base, load_8bit=True), rounded, 0.01)
    yield check("8 bits, bfloat16", replace(base, load_8bit=True, dtype="bfloat16"), rounded, 0.3)
    for case in PACKED:
        out = folder / "packed"
        twin = pack_model(source, out, case)
        name = "gptq {} bits, groups of {}, sym {}, desc_act {}, v{}".format(*case)
        yield check(name, replace(base, path=out, dtype="float32"), logits(twin), 0.02)
        if device == "cuda":
            # Loaded as the other is: a model that is turned into halves loses its positions too.
            same = folder / "twin"
            shutil.copytree(source, same, ignore=shutil.ignore_patterns("*.safetensors"))
            twin.save_pretrained(same)
            half = logits(load(replace(base, path=same, dtype="float16")).model)
            yield check(f"{name}, float16", replace(base, path=out, dtype="float16"), half, 0.02)
            shutil.rmtree(same)
        shutil.rmtree(out)
    if device == "cuda":
        yield from capped(folder)


def capped(folder: Path) -> Iterator[dict[str, Any]]:
    """A cap that a model fits under, and one that leaves a part of it in the machine's memory."""
    source = make_model(folder / "large", 1024, 12)  # some 460 MiB
    wanted = logits(load(HfOptions(source, device="cpu")).model)
    base = HfOptions(source, device="cuda")
    yield check("cap of 4 GiB", replace(base, max_gpu_memory="4GiB"), wanted, 0.01)
    yield check("cap of 300 MiB", replace(base, max_gpu_memory="300MiB"), wanted, 0.01)
    rounded = logits(load(HfOptions(source, device="cpu", load_8bit=True)).model)
    small = replace(base, max_gpu_memory="200MiB", load_8bit=True)
    yield check("cap of 200 MiB, 8 bits", small, rounded, 0.01)


def main(argv: list[str] | None = None) -> int:
    """Runs the cases; 0 where all are right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a model of 128 inputs, not 512")
    args = parser.parse_args(argv)
    sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
    right = True
    with tempfile.TemporaryDirectory() as folder:
        for told in cases(Path(folder), args.device, 128 if args.small else 512):
            print(json.dumps(told), flush=True)
            right &= bool(told["ok"])
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
