import pytest
from pydantic import SecretStr

from dev_opsgpt.config.secrets import (
    is_secret_name,
    mask_text,
    masked,
    unwrap_secrets,
    wrap_secrets,
)


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "api_keys",
        "apikey",
        "key",
        "keys",
        "secret_key",
        "APISecret",
        "CLUSTER_SECRET",
        "hf_token",
        "Authorization",
        "password",
        "access_key_id",
        "azure_key",
    ],
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokenizer", "APPID", "monkey", "api_base_url", 3])
def test_other_names(name: object) -> None:
    assert not is_secret_name(name)


def test_mask_text_hides_what_urls_carry() -> None:
    assert mask_text("http://user:pw@proxy:3128/x") == "http://***@proxy:3128/x"
    assert mask_text("https://h/v1?api_key=abc&b=1") == "https://h/v1?api_key=***&b=1"
    assert mask_text("http://h:1/v1") == "http://h:1/v1"


def test_wrap_and_unwrap() -> None:
    plain = {"APPID": "7", "APISecret": "s", "headers": {"Authorization": "Bearer t"}, "n": [1]}
    wrapped = wrap_secrets(plain)
    assert wrapped["APPID"] == "7"
    assert wrapped["APISecret"] == SecretStr("s")
    assert wrapped["headers"]["Authorization"] == SecretStr("Bearer t")
    assert unwrap_secrets(wrapped) == plain


def test_masked_tells_nothing() -> None:
    value = {
        "api_keys": ["one", SecretStr("two")],
        "api_key": "EMPTY",
        "empty": SecretStr(""),
        "url": "http://u:p@h",
        "n": 1,
        "none": None,
    }
    assert masked(value) == {
        "api_keys": ["***", "***"],
        "api_key": "EMPTY",
        "empty": "",
        "url": "http://***@h",
        "n": 1,
        "none": None,
    }
