"""How a causal language model in Hugging Face format is brought into memory.

In the order of what is done: ``source`` (its folder), ``description`` (its configuration, class and
tokenizer), ``devices`` (where it goes), ``checkpoint`` (its files), ``gptq_loading`` where they are
packed, ``weights`` (into the model), ``int8``, ``context``.
"""

import torch

from dev_opsgpt.engines.hf.context import context_length, end_tokens
from dev_opsgpt.engines.hf.description import describe, generation_config, load_tokenizer
from dev_opsgpt.engines.hf.devices import choose_dtype, place
from dev_opsgpt.engines.hf.kind import kind_of
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.engines.hf.progress import Progress, logged
from dev_opsgpt.engines.hf.sequence import LoadedModel
from dev_opsgpt.engines.hf.source import folder_of, read_config
from dev_opsgpt.engines.hf.weights import load_weights, quietly
from dev_opsgpt.worker.engine import EngineError


def load(options: HfOptions, progress: Progress | None = None) -> LoadedModel:
    """Loads a model, and blocks for as long as that takes. Raises ``EngineError`` with one line.

    ``progress`` hears what is being done and how much of it is, 0 to 1, from any thread; without
    one it goes to the log.
    """
    tell: Progress = progress or logged(str(options.path))
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    trust = options.trust_remote_code
    folder = folder_of(options.path, code=trust, progress=tell)
    raw = read_config(folder)
    if kind_of(raw) != "causal":
        named = ", ".join(raw.get("architectures") or [str(raw.get("model_type"))])
        raise EngineError(
            f"{folder} is no model that writes text ({named}); it serves embeddings or rerank."
        )
    with quietly():
        description = describe(folder, raw, trust)
        tokenizer = load_tokenizer(folder, trust)
        placement = place(options)
        dtype = choose_dtype(options.dtype, description.config, placement.device)
        model = load_weights(description, options, placement, dtype, tell)
        model.generation_config = generation_config(folder, model)
    head = model.get_output_embeddings()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        context_length=context_length(model.config.to_dict(), tokenizer, options.context),
        end_tokens=end_tokens(model.generation_config, tokenizer),
        vocabulary=int(
            model.config.get_text_config().vocab_size if head is None else head.weight.shape[0]
        ),
        device=placement.device,
    )
