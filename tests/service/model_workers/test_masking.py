"""Secrets leave no trace in a text; ordinary words stay."""

from dev_opsgpt.service.model_workers.masking import Mask, secrets_in

ENTRY = {
    "api_key": "key-123456",
    "APISecret": "sec-123456",
    "secret_key": "EMPTY",
    "openai_proxy": "http://user:passw0rd@proxy:1",
    "nested": [{"access_token": "tok-123456"}],
    "version": "gpt-4-turbo",
}


def test_the_secrets_of_an_entry() -> None:
    found = set(secrets_in(ENTRY))
    assert {"key-123456", "sec-123456", "passw0rd", "tok-123456"} <= found
    assert "gpt-4-turbo" not in found


def test_masked() -> None:
    mask = Mask(secrets_in(ENTRY))
    text = mask(
        "gpt-4-turbo key-123456 passw0rd EMPTY Bearer abcdefgh http://x/?access_token=zzz&a=1"
    )
    assert text == "gpt-4-turbo *** *** EMPTY Bearer *** http://x/?access_token=***&a=1"


def test_longer_secrets_first() -> None:
    assert Mask(["abcdef", "abcdef-ghi"])("abcdef-ghi abcdef") == "*** ***"


def test_nothing_to_hide() -> None:
    assert Mask([])("plain") == "plain"
