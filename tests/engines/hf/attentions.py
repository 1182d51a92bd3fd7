"""Tiny models of random weights, one of each kind of attention, made in memory."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

from dev_opsgpt.engines.hf.sequence import LoadedModel

VOCABULARY, CONTEXT = 199, 256
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def _made(config: Any) -> Any:
    torch.manual_seed(7)
    return hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def llama() -> Any:
    return _made(hf.LlamaConfig(**_COMMON))


def qwen2() -> Any:
    return _made(hf.Qwen2Config(**_COMMON))


def qwen3() -> Any:
    return _made(hf.Qwen3Config(**_COMMON, head_dim=16))


def mistral() -> Any:
    return _made(hf.MistralConfig(**_COMMON, sliding_window=20))


def gemma2() -> Any:
    return _made(
        hf.Gemma2Config(
            **_COMMON, head_dim=16, sliding_window=20, attn_logit_softcapping=5.0,
            query_pre_attn_scalar=16,
        )
    )  # fmt: skip


def gemma3() -> Any:
    return _made(
        hf.Gemma3TextConfig(
            **_COMMON, head_dim=16, sliding_window=20, query_pre_attn_scalar=16,
            layer_types=["sliding_attention", "full_attention"],
        )
    )  # fmt: skip


def gpt_oss() -> Any:
    return _made(
        hf.GptOssConfig(
            **_COMMON, head_dim=16, sliding_window=20, num_local_experts=4, num_experts_per_tok=2,
            layer_types=["sliding_attention", "full_attention"],
        )
    )  # fmt: skip


def gpt2() -> Any:
    return _made(
        hf.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT,
            initializer_range=0.3, bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )
    )  # fmt: skip


def bloom() -> Any:
    return _made(
        hf.BloomConfig(
            vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3,
            bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )
    )  # fmt: skip


def mamba() -> Any:
    return _made(
        hf.MambaConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8,
            initializer_range=0.3, bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )
    )  # fmt: skip


def mamba2() -> Any:
    return _made(
        hf.Mamba2Config(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8, num_heads=8,
            head_dim=8, n_groups=1, chunk_size=8, initializer_range=0.3, bos_token_id=None,
            eos_token_id=None, pad_token_id=0,
        )
    )  # fmt: skip


def bamba() -> Any:
    return _made(
        hf.BambaConfig(
            **_COMMON, attn_layer_indices=[1], mamba_n_heads=4, mamba_d_state=8, mamba_d_head=16,
            mamba_chunk_size=8,
        )
    )  # fmt: skip


def recurrent_gemma() -> Any:
    given = {**_COMMON, "num_hidden_layers": 3}
    return _made(hf.RecurrentGemmaConfig(**given, lru_width=32, attention_window_size=20))


def qwen3_next() -> Any:
    return _made(
        hf.Qwen3NextConfig(
            **_COMMON, head_dim=16, linear_num_value_heads=4, linear_num_key_heads=2,
            linear_key_head_dim=8, linear_value_head_dim=8, num_experts=4, num_experts_per_tok=2,
            moe_intermediate_size=16, shared_expert_intermediate_size=16,
            layer_types=["linear_attention", "full_attention"],
        )
    )  # fmt: skip


def deepseek_v32(index_topk: int = 48) -> Any:
    """Sees all of a trial's tokens, and of many the best. One head scores them, and half of its
    scores are 0: equal."""
    return _made(
        hf.DeepseekV32Config(
            **{**_COMMON, "num_key_value_heads": 4}, index_n_heads=1, index_head_dim=16,
            index_topk=index_topk, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8,
            qk_rope_head_dim=8, v_head_dim=8, moe_intermediate_size=16, n_routed_experts=4,
            num_experts_per_tok=2, n_shared_experts=1, n_group=1, topk_group=1,
        )
    )  # fmt: skip


BATCHED: dict[str, Callable[[], Any]] = {
    one.__name__: one for one in (llama, qwen2, qwen3, mistral, gemma2, gemma3, gpt_oss, gpt2)
}
APART: dict[str, Callable[[], Any]] = {
    one.__name__: one
    for one in (bloom, mamba, mamba2, bamba, recurrent_gemma, qwen3_next, deepseek_v32)
}
ALL = BATCHED | APART
WHOLE = {"mamba", "recurrent_gemma", "deepseek_v32"}
"""Those that cannot go on from inside of a prompt."""


def loaded(model: Any, context: int = CONTEXT) -> LoadedModel:
    return LoadedModel(
        model=model,
        tokenizer=None,
        context_length=context,
        end_tokens=frozenset(),
        vocabulary=VOCABULARY,
        device=torch.device("cpu"),
    )


def generate(model: Any, prompt: list[int], count: int) -> tuple[list[int], torch.Tensor]:
    """What the model's own greedy ``generate`` gives: the tokens, and count x vocabulary
    logits."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        answer = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    return answer.sequences[0, len(prompt) :].tolist(), torch.cat(answer.logits)
