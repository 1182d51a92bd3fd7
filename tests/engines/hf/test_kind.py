import pytest

from dev_opsgpt.engines.hf.kind import Kind, kind_of


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("LlamaForCausalLM", "causal"),
        ("GPT2LMHeadModel", "causal"),
        ("QWenLMHeadModel", "causal"),
        ("Gemma3ForConditionalGeneration", "causal"),
        ("BertModel", "encoder"),
        ("XLMRobertaModel", "encoder"),
        ("MistralModel", "encoder"),
        ("NomicBertForMaskedLM", "encoder"),
        ("XLMRobertaForSequenceClassification", "cross_encoder"),
        ("Qwen3ForSequenceClassification", "cross_encoder"),
    ],
)
def test_by_architecture(architecture: str, kind: Kind) -> None:
    assert kind_of({"architectures": [architecture]}) == kind


def test_by_type_where_no_architecture_is_named() -> None:
    assert kind_of({"model_type": "bert"}) == "encoder"
    assert kind_of({"model_type": "llama", "architectures": None}) == "causal"


def test_a_causal_model_that_is_used_for_its_vectors() -> None:
    config = {"architectures": ["Qwen3ForCausalLM"]}
    assert kind_of(config, sentence_transformers=True) == "encoder"
    cross = {"architectures": ["BertForSequenceClassification"]}
    assert kind_of(cross, sentence_transformers=True) == "cross_encoder"


def test_a_model_of_its_own_code_that_writes() -> None:
    config = {"architectures": ["ChatGLMModel"], "auto_map": {"AutoModelForCausalLM": "m.C"}}
    assert kind_of(config) == "causal"
