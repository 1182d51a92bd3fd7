"""The training loop: dialogues in, a trained Llama out, the same weights for the same seed."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaForCausalLM

from tiny_chat.chat_format import TURN_END, TURN_START, ChatFormat
from tiny_chat.corpus import dialogues, drills
from tiny_chat.model import Shape, build_model
from tiny_chat.tokenizer import token_id

# The user's words count a little: they teach the words, and that words come again.
PROMPT_WEIGHT = 0.2
ROLE_TOKENS = 3  # <|im_start|>, "assistant", "\n"


@dataclass(frozen=True)
class Recipe:
    """What decides the weights. Two runs with equal recipes on one machine give equal bytes."""

    steps: int = 1500
    drills: int = 24_576  # how many copying drills come before the conversations
    batch_tokens: int = 4096
    matrix_rate: float = 0.02
    learning_rate: float = 3e-3
    warmup: int = 30
    seed: int = 20_002
    threads: int = 2


@dataclass(frozen=True)
class Progress:
    """How far a run is: `loss` is the mean over the assistant's tokens of the last steps."""

    step: int
    loss: float
    seconds: float
    tokens: int


@dataclass
class Batch:
    """`ids` and what each token counts, both (examples, longest); padding counts nothing."""

    ids: Tensor
    weights: Tensor


@dataclass
class Meter:
    """Collects losses between two reports."""

    started: float = field(default_factory=time.monotonic)
    losses: list[float] = field(default_factory=list)
    tokens: int = 0

    def take(self, step: int) -> Progress:
        """The progress since the last call."""
        loss = sum(self.losses) / max(1, len(self.losses))
        self.losses.clear()
        return Progress(step, loss, time.monotonic() - self.started, self.tokens)


def token_weights(ids: list[int], start: int, end: int, assistant: int) -> list[float]:
    """How much each token counts as something to be said: the assistant's words in full."""
    weights = [PROMPT_WEIGHT] * len(ids)
    speaking, skip_until = False, 0
    for position, token in enumerate(ids):
        if token == start:
            speaking = position + 1 < len(ids) and ids[position + 1] == assistant
            skip_until = position + ROLE_TOKENS
        elif speaking and position >= skip_until:
            weights[position] = 1.0
            speaking = token != end
    return weights


def batches(tokenizer: Tokenizer, recipe: Recipe, context: int) -> Iterator[Batch]:
    """Endless batches of whole dialogues, each batch of similar lengths.

    A dialogue starts at position 0 and sees only itself, as in use; sorting a pool by length
    keeps the padding small.
    """
    fmt, rng = ChatFormat(), random.Random(recipe.seed)
    start, end = token_id(tokenizer, TURN_START), token_id(tokenizer, TURN_END)
    assistant = tokenizer.encode("assistant").ids[0]
    first = itertools.islice(drills(recipe.seed), recipe.drills)
    source = itertools.chain(first, dialogues(recipe.seed))
    while True:
        texts = [fmt.example(d) for d in itertools.islice(source, 4096)]
        encoded = [e.ids[:context] for e in tokenizer.encode_batch(texts)]
        encoded.sort(key=len)
        groups: list[list[list[int]]] = [[]]
        for ids in encoded:
            if groups[-1] and len(ids) * (len(groups[-1]) + 1) > recipe.batch_tokens:
                groups.append([])
            groups[-1].append(ids)
        rng.shuffle(groups)
        for group in groups:
            yield padded(group, [token_weights(ids, start, end, assistant) for ids in group])


def padded(ids: list[list[int]], weights: list[list[float]]) -> Batch:
    """Rows of different lengths as two tensors."""
    width = max(len(row) for row in ids)
    return Batch(
        torch.tensor([row + [0] * (width - len(row)) for row in ids]),
        torch.tensor([row + [0.0] * (width - len(row)) for row in weights]),
    )


def batch_loss(model: LlamaForCausalLM, batch: Batch) -> tuple[Tensor, float]:
    """The weighted cross entropy to train on, and the plain one of the assistant's words."""
    weights = batch.weights[:, 1:]
    counts = weights > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # Padding stands at the end, so causal attention alone keeps it out.
        hidden = model.model(input_ids=batch.ids).last_hidden_state[:, :-1][counts]
        logits = nn.functional.linear(hidden, model.model.embed_tokens.weight)
    losses = nn.functional.cross_entropy(logits.float(), batch.ids[:, 1:][counts], reduction="none")
    weights = weights[counts]
    said = losses.detach()[weights == 1.0].mean().item()
    return (losses * weights).sum() / weights.sum(), said


def make_optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embeddings and the norms.

    With as few tokens as here Muon needs about a third of the steps that AdamW alone needs.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim > 1 and "embed" not in name
        (matrices if inside else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.02),
        torch.optim.AdamW(
            others, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        ),
    ]


def rate(step: int, recipe: Recipe) -> float:
    """The share of the learning rate at `step`: warm up, stay, then fall in a line to 1 %."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    decay = recipe.steps * 0.5
    return max(0.01, min(1.0, (recipe.steps - step) / decay))


def fix_chance(recipe: Recipe) -> None:
    """Everything that could differ between two runs is set here."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    # Deterministic mode fills every new tensor with NaN to show reads of unset memory: slow here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def train(
    tokenizer: Tokenizer,
    shape: Shape,
    recipe: Recipe,
    report: Callable[[Progress], None],
    report_every: int = 20,
) -> LlamaForCausalLM:
    """Train from nothing; `report` is called every `report_every` steps and after the last."""
    fix_chance(recipe)
    model = build_model(shape, tokenizer)
    optimizers = make_optimizers(model, recipe)
    schedules = [LambdaLR(o, lambda step: rate(step, recipe)) for o in optimizers]
    stream, meter = batches(tokenizer, recipe, shape.context), Meter()
    for step in range(1, recipe.steps + 1):
        batch = next(stream)
        loss, said = batch_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad(set_to_none=True)
        meter.losses.append(said)
        meter.tokens += batch.ids.numel()
        if step % report_every == 0 or step == recipe.steps:
            report(meter.take(step))
    return model
