"""Which engine a model in Hugging Face format needs, by what its ``config.json`` says. Pure."""

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["causal", "encoder", "cross_encoder"]

# Model types that are encoders where ``architectures`` is missing or says nothing.
_ENCODERS = frozenset(
    (
        *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra"),
        *("eurobert", "jina_bert", "mobilebert", "modernbert", "mpnet", "new", "nomic_bert"),
        *("roberta", "t5encoder", "xlm-roberta", "xlm-roberta-xl"),
    )
)
_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForImageTextToText")
_CLASSIFIES = "ForSequenceClassification"
_ENCODES = ("Model", "Encoder", "ForMaskedLM", "ForPreTraining", "ForTextEncoding")


def kind_of(config: Mapping[str, Any], *, sentence_transformers: bool = False) -> Kind:
    """What a model is for: ``causal`` writes text, ``encoder`` turns a text into a vector,
    ``cross_encoder`` scores a pair of texts.

    ``config`` is the content of ``config.json`` (``PretrainedConfig.to_dict()`` has the same keys).
    ``sentence_transformers`` says that a ``modules.json`` stands beside it: then a causal model is
    used for its vectors, as Qwen3-Embedding is.
    """
    names = [str(name) for name in config.get("architectures") or ()]
    if any(name.endswith(_CLASSIFIES) for name in names):
        return "cross_encoder"
    if sentence_transformers:
        return "encoder"
    # "GPT2LMHeadModel" ends in "Model" too, so what generates is asked for first.
    if any(name.endswith(_GENERATES) for name in names):
        return "causal"
    if "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        return "causal"  # ChatGLM calls itself "ChatGLMModel"
    if any(name.endswith(_ENCODES) for name in names):
        return "encoder"
    return "encoder" if config.get("model_type") in _ENCODERS else "causal"
