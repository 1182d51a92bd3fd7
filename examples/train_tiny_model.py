"""Make the embedded model `tiny-chat`: write its corpus, train it, export it.

    python examples/train_tiny_model.py
    python examples/train_tiny_model.py --steps 20 --out build/probe

makes OUT/tiny-chat/ (for transformers) and OUT/tiny-chat.gguf (for llama.cpp). It needs torch,
transformers, tokenizers, safetensors, gguf, jinja2 and no network. The same seed and thread
count on the same machine give the same bytes.
"""

import argparse
import itertools
import time
from pathlib import Path

from tiny_chat.artefacts import write_folder
from tiny_chat.chat_format import ChatFormat
from tiny_chat.corpus import dialogues
from tiny_chat.export_gguf import export_gguf
from tiny_chat.model import Shape
from tiny_chat.tokenizer import train_tokenizer
from tiny_chat.train import Progress, Recipe, train

NAME = "tiny-chat"
TOKENIZER_DIALOGUES = 20_000


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    default = Recipe()
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent.parent / "llm_models"
    )
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--batch-tokens", type=int, default=default.batch_tokens)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--threads", type=int, default=default.threads)
    parser.add_argument("--gguf-type", default="Q8_0", help="F32, F16, BF16 or Q8_0")
    return parser.parse_args()


def show(progress: Progress) -> None:
    """One line of progress."""
    pace = progress.seconds / progress.step
    print(
        f"step {progress.step:5d}  loss {progress.loss:.4f}  {pace:.2f} s/step  "
        f"{progress.tokens / 1e6:.1f} M tokens  cpu {time.process_time():.0f} s",
        flush=True,
    )


def main() -> None:
    """Run the whole of it."""
    args = parse_arguments()
    recipe = Recipe(
        steps=args.steps,
        batch_tokens=args.batch_tokens,
        seed=args.seed,
        threads=args.threads,
    )
    shape, fmt, started = Shape(), ChatFormat(), time.monotonic()
    sample = itertools.islice(dialogues(args.seed), TOKENIZER_DIALOGUES)
    tokenizer = train_tokenizer((fmt.example(d) for d in sample), shape.vocab_size)
    print(f"tokenizer: {tokenizer.get_vocab_size()} tokens, {time.monotonic() - started:.0f} s")
    model = train(tokenizer, shape, recipe, show)
    write_folder(args.out / NAME, model, tokenizer, shape)
    export_gguf(args.out / NAME, args.out / f"{NAME}.gguf", args.gguf_type)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters in {time.monotonic() - started:.0f} s -> {args.out}")


if __name__ == "__main__":
    main()
