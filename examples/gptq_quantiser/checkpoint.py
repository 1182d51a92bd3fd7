"""The folder of a quantised model: what ``from_pretrained`` needs, with packed layers."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from gptq_quantiser.packing import packed_tensors
from gptq_quantiser.solver import Recipe, Solved

WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf", ".index.json")


def write_checkpoint(
    source: Path,
    folder: Path,
    model: nn.Module,
    solved: Mapping[str, Solved],
    recipe: Recipe,
    version: int,
) -> None:
    """Writes ``folder``: the other files of ``source``, and the tensors of ``model`` with the
    layers of ``solved`` in the layout of ``version`` (1 "gptq", 2 "gptq_v2")."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and not file.name.endswith(WEIGHTS):
            shutil.copy(file, folder / file.name)
    packed = {f"{name}.weight" for name in solved}
    tied = getattr(model, "all_tied_weights_keys", {})
    tensors = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name not in packed and name not in tied
    }
    for name, layer in solved.items():
        tensors |= packed_tensors(name, layer, recipe.bits, version)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    described = {
        "quant_method": "gptq",
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "sym": recipe.sym,
        "desc_act": recipe.desc_act,
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
        "lm_head": False,
        "pack_dtype": "int32",
    }
    config = json.loads((source / "config.json").read_text("utf-8"))
    config["quantization_config"] = described
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / "quantize_config.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")
