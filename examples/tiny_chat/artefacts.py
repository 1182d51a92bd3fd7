"""The model folder: what transformers (4.36 and later) and FastChat's workers load.

The JSON files are written here, not by `save_pretrained`, because today's transformers writes
keys and class names that the releases FastChat works with do not know.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from tiny_chat.chat_format import (
    CONTROL_TOKENS,
    END_OF_TEXT,
    TOOL_MARKS,
    TURN_END,
    template_text,
)
from tiny_chat.model import Shape, model_config, token_ids
from tiny_chat.tokenizer import portable_json, token_id


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """generation_config.json: how the model answers where a client says nothing."""
    return {**token_ids(tokenizer), "do_sample": True, "temperature": 0.7, "top_p": 0.95}


def tokenizer_config(tokenizer: Tokenizer, context: int) -> dict[str, Any]:
    """tokenizer_config.json; the template stands in it too, for transformers before 4.43."""
    added = {
        str(token_id(tokenizer, text)): {
            "content": text,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": text in CONTROL_TOKENS,
        }
        for text in (*CONTROL_TOKENS, *TOOL_MARKS)
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "bos_token": END_OF_TEXT,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": added,
        "chat_template": template_text(),
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """One JSON file, readable and with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_folder(folder: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, shape: Shape) -> None:
    """Write the model to `folder`, replacing its model files only when all of them are written.

    A README.md that stands there stays.
    """
    fresh = folder.with_name(folder.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    write_json(fresh / "config.json", model_config(shape, tokenizer))
    write_json(fresh / "generation_config.json", generation_config(tokenizer))
    write_json(fresh / "tokenizer_config.json", tokenizer_config(tokenizer, shape.context))
    (fresh / "tokenizer.json").write_text(portable_json(tokenizer), "utf-8")
    (fresh / "chat_template.jinja").write_text(template_text(), "utf-8")
    # lm_head is the embedding matrix and is not stored twice.
    weights = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(weights, fresh / "model.safetensors", metadata={"format": "pt"})
    (fresh / "model.safetensors").chmod(0o644)  # save_file keeps it to the owner
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(fresh.iterdir()):
        os.replace(path, folder / path.name)
    fresh.rmdir()
