"""The table of errors is complete and consistent."""

import pytest

from dev_opsgpt.protocol import errors
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.transport import errors as transport_errors

ALL = [
    found
    for module in (errors, transport_errors)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, ApiError)
]
# FastChat's ErrorCode, by the documents of fschat 0.2.36.
FASTCHAT_CODES = {
    *(40001, 40101, 40102, 40103, 40301, 40302, 40303),
    *(42901, 42902, 42903, 50001, 50002, 50005, 50006),
}


@pytest.mark.parametrize("kind", ALL)
def test_each_row(kind: type[ApiError]) -> None:
    error = kind("It went wrong.", param="x")
    assert 400 <= error.status <= 599
    assert error.fastchat_code in FASTCHAT_CODES
    assert errors.openai_body(error) == {
        "error": {
            "message": "It went wrong.",
            "type": error.type,
            "param": "x",
            "code": error.default_code,
        }
    }
    body = errors.fastchat_body(error)
    assert body == {"text": "It went wrong.", "error_code": error.fastchat_code}


@pytest.mark.parametrize("kind", ALL)
def test_a_client_s_own_fault_is_never_the_server_s(kind: type[ApiError]) -> None:
    assert (kind.status < 500) == (kind.type != "server_error")


def test_headers() -> None:
    assert errors.headers(errors.Overloaded("x", retry_after=0.2)) == {"retry-after": "1"}
    assert errors.headers(errors.AuthenticationFailed("x")) == {"www-authenticate": "Bearer"}
    assert errors.headers(errors.InternalError("x")) == {}


def test_a_code_can_be_more_precise() -> None:
    assert errors.InvalidRequest("x", code="invalid_json").code == "invalid_json"


def test_the_table_reads_backwards() -> None:
    told = {kind.fastchat_code for kind in ALL}
    # Our credential refused, and a plain failure, are an upstream's failure whatever the code.
    assert told - set(errors.FROM_FASTCHAT) == {40101, 40103, 50001}
    for code, kind in errors.FROM_FASTCHAT.items():
        assert kind.fastchat_code == code or code == 42902
    for status, kind in errors.FROM_STATUS.items():
        assert kind.status == status or status in (408, 422, 501)
