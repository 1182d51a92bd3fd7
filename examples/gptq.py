"""Quantise a model to GPTQ int4; and the module by which FastChat loads such a model.

    python examples/gptq.py llm_models/tiny-chat llm_models/tiny-chat-int4
    python examples/gptq.py MODEL OUT --bits 4 --group-size 128 --desc-act --text notes.txt

reads a model in Hugging Face format and some text, and writes OUT, which the transformers engine
serves like any other folder:

    llm_model_dict = {"tiny-chat-int4": {"local_model_path": "tiny-chat-int4"}}

The text decides which errors matter: take some that is like what the model will be asked.

The patch. FastChat loads int4 models by an old fork of somebody's repository. Where it is still
FastChat's own worker that serves the model, this file stands in for that:

    cp examples/gptq.py SITE_PACKAGES/fastchat/modules/gptq.py      # kwargs["gptq_wbits"] = 4

With OpsGPT Serve's own engine nothing is patched, and `gptq_wbits = 4` need not even be said where
the checkpoint says it.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent
TEXTS = ("README.md", "CONTRIBUTING.md", "docs")


@dataclass
class GptqConfig:
    """What FastChat says of a quantised model: its command line's --gptq-* options."""

    ckpt: str | None = None
    wbits: int = 16
    groupsize: int = -1
    act_order: bool = True
    model_basename: str | None = None
    seqlen: int = 4096


def load_gptq_quantized(model_name: str, gptq_config: GptqConfig) -> tuple[Any, Any]:
    """Model and tokenizer, for FastChat. ``model_name`` is the model's folder."""
    from dev_opsgpt.engines.hf.loading import load
    from dev_opsgpt.engines.hf.options import GptqOptions, HfOptions

    same = gptq_config.ckpt is None or Path(gptq_config.ckpt) == Path(model_name)
    options = GptqOptions(
        bits=None if gptq_config.wbits == 16 else gptq_config.wbits,
        checkpoint=None if same else gptq_config.ckpt,
        group_size=gptq_config.groupsize,
    )
    # FastChat moves the model to its device itself.
    loaded = load(HfOptions(model_name, device="cpu", gptq=options))
    return loaded.model, loaded.tokenizer


def find_gptq_ckpt(gptq_config: GptqConfig) -> str:
    """The file or folder of a checkpoint."""
    return gptq_config.ckpt or "."


def calibration_text(paths: list[Path]) -> str:
    """The text of some files, and of the files in folders; this project's own pages where none is
    named."""
    paths = paths or [EXAMPLES.parent / name for name in TEXTS]
    files = [
        file for path in paths for file in (sorted(path.glob("*.md")) if path.is_dir() else [path])
    ]
    return "\n\n".join(file.read_text("utf-8") for file in files)


def token_batches(tokenizer: Any, text: str, count: int, length: int) -> list[Any]:
    """``count`` pieces of a text, spread over it evenly, [1, length] token ids each."""
    import torch

    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids[0]
    length = min(length, len(ids))
    starts = torch.linspace(0, len(ids) - length, count).long().tolist()
    return [ids[start : start + length][None] for start in dict.fromkeys(starts)]


def mean_loss(model: Any, batches: list[Any]) -> float:
    """The mean over all tokens of how surprised the model is, in nats."""
    import torch

    with torch.no_grad():
        losses = [model(batch, labels=batch).loss.item() for batch in batches]
    return sum(losses) / len(losses)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="a folder in Hugging Face format")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--bits", type=int, default=4, choices=(2, 3, 4, 8))
    parser.add_argument("--group-size", type=int, default=128, help="inputs of a group; -1: all")
    parser.add_argument("--asym", action="store_true", help="a zero point for each group")
    parser.add_argument("--desc-act", action="store_true", help="in order of activation")
    parser.add_argument("--format", choices=("gptq", "gptq_v2"), default="gptq")
    parser.add_argument("--text", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--samples", type=int, default=64, help="pieces of text")
    parser.add_argument("--length", type=int, default=512, help="tokens of a piece")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Quantises a model, writes it, loads it as the service would, and compares."""
    sys.path[:0] = [str(EXAMPLES), str(EXAMPLES.parent)]
    from gptq_quantiser import Recipe, quantise_model, write_checkpoint

    from dev_opsgpt.engines.hf.loading import load
    from dev_opsgpt.engines.hf.options import HfOptions

    args = parse_arguments(argv)
    recipe = Recipe(args.bits, args.group_size, not args.asym, args.desc_act)
    source = load(HfOptions(args.model, device="cpu", dtype="float32"))
    text = calibration_text(args.text)
    batches = token_batches(source.tokenizer, text, args.samples + 1, args.length)
    held_back = batches[1:2]
    calibration = batches[:1] + batches[2:]
    before = mean_loss(source.model, held_back)
    solved = quantise_model(
        source.model, calibration, recipe, lambda what, done: print(f"{what}  {done:4.0%}")
    )
    version = 1 if args.format == "gptq" else 2
    write_checkpoint(args.model, args.out, source.model, solved, recipe, version)
    loaded = load(HfOptions(args.out, device="cpu", dtype="float32"))
    sample = held_back[0]
    apart = (loaded.model(sample).logits - source.model(sample).logits).abs().max().item()
    print(f"{args.out}: {len(solved)} layers in {args.bits} bits, {_megabytes(args.out):.1f} MB")
    print(f"loss on text held back: {before:.3f} before, {mean_loss(loaded.model, held_back):.3f}")
    print(f"loaded again, its logits are {apart:.1e} from those it was written for")


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6


if __name__ == "__main__":
    main()
