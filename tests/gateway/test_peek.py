"""What the gateway reads of a body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.peek import peek, with_field
from dev_opsgpt.protocol.errors import InvalidRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_reads_model_and_stream() -> None:
    found = peek(b'{"messages": [{"deep": [1, {}]}], "stream": true, "model": "m"}')
    assert (found.model, found.stream) == ("m", True)
    assert peek(b'{"model": "m"}').stream is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b'"x"', None),
        (b"[" * 100_000, None),
        (b'{"a":' * 100_000, None),
        (b'{"model": "m", "messages": ' + b"[" * 100_000, None),
        (b"\xff\xfe{}", None),
        (b"{}", "model"),
        (b'{"model": 5}', "model"),
        (b'{"model": null}', "model"),
        (b'{"model": "\xff"}', None),
        (b'{"model": "m", "stream": "yes"}', "stream"),
    ],
)
def test_names_what_is_wrong(body: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        peek(body)
    assert caught.value.param == param
    assert caught.value.status == 400


@given(st.dictionaries(st.text(), JSON, max_size=5), st.text())
def test_a_field_is_set_and_the_others_stay(fields: dict[str, object], value: str) -> None:
    body = json.dumps(fields).encode()
    changed = json.loads(with_field(body, "model", json.dumps(value).encode()))
    assert changed == fields | {"model": value}


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_body_is_called_so(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"The request body is empty\.") as caught:
        peek(body)
    assert caught.value.code == "invalid_json"
