"""What the transformers engines are told about a model. No torch in here: the launcher makes it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GptqOptions:
    """What the configuration says of quantised weights (GPTQ, or AWQ where ``awq`` is set).

    What is None or -1 is read from the checkpoint; where both speak they have to agree on the bits.
    ``checkpoint`` is a file, or a name in the model's folder. ``group_size`` counts input rows.
    """

    bits: int | None = None
    checkpoint: str | None = None
    group_size: int = -1
    act_order: bool = False
    awq: bool = False


@dataclass(frozen=True)
class HfOptions:
    """How to run a model in Hugging Face format.

    ``path`` is its folder, or the name of a repository on the hub. ``context`` is the tokens of one
    request (None: what the model was made for), ``parallel`` the most sequences at once. ``device``
    is auto, cpu, cuda, mps, npu or xpu; ``dtype`` float32, bfloat16 or float16 (None: chosen).
    ``num_gpus`` and ``max_gpu_memory`` ("20GiB", for each GPU) spread a model over several;
    ``gpus`` are the numbers of those that this process is kept to (the launcher has set
    ``CUDA_VISIBLE_DEVICES``). ``threads`` are CPU threads (None: PyTorch's choice).
    ``prefill_tokens`` bounds what one step reads of prompts, ``cache_tokens`` the tokens whose keys
    and values are kept, for all sequences together (None: as many as ``parallel`` contexts have).
    """

    path: Path | str
    context: int | None = None
    parallel: int = 5
    device: str = "auto"
    dtype: str | None = None
    num_gpus: int = 1
    gpus: str | None = None
    max_gpu_memory: str | None = None
    load_8bit: bool = False
    trust_remote_code: bool = False
    threads: int | None = None
    gptq: GptqOptions | None = None
    prefill_tokens: int = 512
    cache_tokens: int | None = None
