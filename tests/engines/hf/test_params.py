from types import SimpleNamespace
from typing import Any

import pytest

from dev_opsgpt.engines.hf.params import Defaults, defaults_of, sampling, stops_of
from dev_opsgpt.engines.hf.sequence import Sampling
from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.worker.engine import EngineError

from ..answers import chat, completion

NONE = Defaults()
MODEL = SimpleNamespace(temperature=0.6, top_k=20, top_p=None, max_new_tokens=50)


def found(request: Any, defaults: Defaults = NONE, index: int = 0) -> Sampling:
    return sampling(
        request, defaults, index=index, room=100, vocabulary=10, end_tokens=frozenset([3])
    )


def test_nothing_asked_is_openais_default() -> None:
    assert found(chat()) == Sampling(max_tokens=100, end_tokens=frozenset([3]))


def test_the_request_then_the_configuration_then_the_model() -> None:
    defaults = defaults_of({"temperature": 0.2, "min_p": 0.1}, MODEL)
    chosen = found(chat(min_p=0.3), defaults)
    assert (chosen.temperature, chosen.min_p, chosen.top_k, chosen.top_p) == (0.2, 0.3, 20, 1.0)
    assert chosen.max_tokens == 50
    assert found(chat(max_tokens=70), defaults).max_tokens == 70
    assert found(chat(max_tokens=7000), defaults).max_tokens == 100
    assert found(completion(max_tokens=0), defaults).max_tokens == 0


def test_all_fields_arrive() -> None:
    asked = {
        **{"temperature": 0.5, "top_p": 0.4, "top_k": 3, "min_p": 0.2, "seed": 7},
        **{"presence_penalty": 1.0, "frequency_penalty": -1.0, "repetition_penalty": 1.5},
    }
    chosen = found(chat(**asked, logit_bias={"4": 5}, logprobs=True, top_logprobs=2), index=2)
    for name, value in asked.items():
        assert getattr(chosen, name) == (9 if name == "seed" else value)
    assert chosen.logit_bias == {4: 5}
    assert chosen.logprobs == 2
    assert found(chat(top_k=-1)).top_k == 0
    assert 0 <= found(chat(seed=2**63 - 1), index=1).seed < 2**63  # type: ignore[operator]


def test_tokens_that_end_an_answer() -> None:
    assert found(chat(stop_token_ids=[5, 6])).end_tokens == {3, 5, 6}
    with pytest.raises(InvalidRequest) as error:
        found(chat(stop_token_ids=[10]))
    assert error.value.param == "stop_token_ids"


def test_a_bias_of_a_token_that_there_is_not() -> None:
    with pytest.raises(InvalidRequest) as error:
        found(chat(logit_bias={"10": 1}))
    assert error.value.param == "logit_bias"


def test_default_stops_and_template_options() -> None:
    defaults = defaults_of({"stop": "x", "chat_template_kwargs": {"a": 1}}, None)
    assert stops_of(chat(), defaults) == ["x"]
    assert stops_of(chat(stop=["y"]), defaults) == ["y"]
    assert defaults.template == {"a": 1}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"temprature": 1}, "temprature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"messages": []}, "messages"),
    ],
)
def test_default_params_that_are_wrong(given: dict[str, Any], told: str) -> None:
    with pytest.raises(EngineError, match=told):
        defaults_of(given, None)
