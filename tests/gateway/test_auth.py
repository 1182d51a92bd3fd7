"""Client keys."""

import hashlib

import pytest

from dev_opsgpt.gateway.auth import Keys
from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.transport.server import Scope


def scope(token: str | None, client: str = "127.0.0.1") -> Scope:
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    return {"headers": headers, "client": (client, 1234)}


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1"])
def test_without_keys_this_machine_is_served(client: str) -> None:
    Keys([]).check(scope(None, client))
    Keys([]).check(scope("anything", client))


@pytest.mark.parametrize("client", ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "unix"])
def test_without_keys_nobody_else_is(client: str) -> None:
    with pytest.raises(AuthenticationFailed):
        Keys([]).check(scope("anything", client))


def test_keys_in_clear_and_hashed() -> None:
    hashed = "sha256:" + hashlib.sha256(b"two").hexdigest()
    keys = Keys(["one", hashed])
    keys.check(scope("one", "10.0.0.1"))
    keys.check(scope("two"))
    for wrong in ("three", "", hashed, "ON", "onee", None):
        assert not keys.knows(wrong)
        with pytest.raises(AuthenticationFailed) as caught:
            keys.check(scope(wrong))
        assert "one" not in caught.value.message
    assert "'one'" not in repr(vars(keys))
