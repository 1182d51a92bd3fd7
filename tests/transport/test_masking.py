import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.transport.masking import MASK, mask

SECRET = "q8Zr2LmT0vKx4Nw7"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: basic {SECRET}==",
        f"{{'authorization': 'Bearer {SECRET}'}}",
        f"(b'authorization', b'Bearer {SECRET}')",
        f"Incorrect API key provided: sk-{SECRET}",
        f"sk-proj-{SECRET}_{SECRET}",
        f"api_key={SECRET}",
        f'{{"api_key": "{SECRET}", "model": "tiny"}}',
        f'{{\\"apiKey\\": \\"{SECRET}\\"}}',
        f"x-api-key: {SECRET}",
        f"client_secret={SECRET}&grant=x",
        f"password = '{SECRET}'",
        f"http://user:{SECRET}@example.com/v1",
        f"postgresql+psycopg://opsgpt:p@{SECRET}@db/opsgpt",
        f"redis://:{SECRET}@127.0.0.1:6379/0",
        f"GET https://example.com/v1?access_token={SECRET}&x=1",
        f"https://example.com/v1?x=1&key={SECRET}",
        f"gsk_{SECRET}",
        f"hf_{SECRET}",
        f"xai-{SECRET}",
        f"AIza{SECRET}",
        f"eyJ{SECRET}.eyJ{SECRET}.{SECRET}",
    ],
)
def test_secrets_are_hidden(text: str) -> None:
    for found in (text, f"ClientError: {text} (after 3 attempts)"):
        assert SECRET not in mask(found)
        assert MASK in mask(found)


@pytest.mark.parametrize(
    "text",
    [
        "registered tiny-chat as http://127.0.0.1:20002",
        "prompt_tokens=12 completion_tokens=34 max_tokens=100",
        "the task-scheduler of disk-usage is risk-averse-by-design",
        "an unexpected token: 'x' at line 3, key 'model'",
        "POST https://example.com/v1/chat/completions?stream=true 200",
        "basic auth is not supported; the key is missing",
        "",
    ],
)
def test_plain_texts_stay_as_they_are(text: str) -> None:
    assert mask(text) == text


@given(st.text(max_size=300))
def test_masking_twice_is_masking_once(text: str) -> None:
    once = mask(text)
    assert mask(once) == once


def test_what_is_around_a_secret_stays() -> None:
    text = f"GET https://me:{SECRET}@example.com/v1?api_key={SECRET}&model=tiny failed: 401"
    assert mask(text) == "GET https://***@example.com/v1?api_key=***&model=tiny failed: 401"


@pytest.mark.parametrize("text", ["://" * 20_000, "?key" * 20_000, "sk-" * 30_000, "key=" * 20_000])
def test_long_texts_are_no_trap(text: str) -> None:
    assert len(mask(text)) <= len(text)
