import pytest

from dev_opsgpt.controller.address import allowed, check_address
from dev_opsgpt.protocol.errors import InvalidRequest


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:21002",
        "https://gpu-1.lan",
        "http://[::1]:21002",
        "http://10.0.0.1:80/worker/3",
        "http://localhost:21002/",
    ],
)
def test_good_addresses(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:21002",
        "ftp://a:1",
        "file:///etc/passwd",
        "http://",
        "http://:80",
        "http://user@host:1",
        "http://user:pass@host:1",
        "http://a:1?x=1",
        "http://a:1?",
        "http://a:1#f",
        "http://a:1#",
        "http://a:x",
        "http://a:99999",
        "http://a:0",
        "http://a:",
        "http://[::1",
        "http://a b:1",
        "http://a:1\n",
        "http://a\t:1",
        "http://a\\@b:1",
        "http://bücher.example",
    ],
)
def test_bad_addresses(address: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_address(address)
    assert caught.value.param == "worker_name"
    assert not allowed(address, ("*", "http*", address))


@pytest.mark.parametrize(
    ("pattern", "address", "match"),
    [
        ("http://127.0.0.1:2100*", "http://127.0.0.1:21002", True),
        ("http://127.0.0.1:2100*", "http://127.0.0.1:21102", False),
        ("http://127.0.0.1:2100*", "http://127.0.0.1:21002/admin", False),
        ("http://127.0.0.1:2100?", "http://127.0.0.1:21002", True),
        ("http://127.0.0.1:2100*", "https://127.0.0.1:21002", False),
        ("http://127.0.0.1*", "http://127.0.0.1:21002", True),
        ("http://127.0.0.1*", "http://127.0.0.1.example.com:80", False),
        ("http://10.0.0.*:21002", "http://10.0.0.7:21002", True),
        ("http://10.0.0.*:21002", "http://10.0.0.7.example.com:21002", False),
        ("http://10.0.0.*:21002", "http://10.0.0.7:9/x:21002", False),
        ("http://10.0.0.*:21002", "http://10.0.0.example:21002", False),
        ("http://[::1]:2100*", "http://[::1]:21002", True),
        ("http://*.lan:21002", "http://gpu.lan:21002", True),
        ("http://*.lan:21002", "http://gpu.lan.evil:21002", False),
        ("http://*:21002", "http://gpu.lan:21002", True),
        ("http://gpu1:21002/w/*", "http://gpu1:21002/w/3", True),
        ("http://gpu1:21002", "http://gpu1x21002", False),
        ("*", "http://anywhere.example:1/x", True),
    ],
)
def test_patterns(pattern: str, address: str, match: bool) -> None:
    assert allowed(address, (pattern,)) is match
    assert allowed(address, ("http://other:1", pattern)) is match


def test_no_pattern_allows_nothing() -> None:
    assert not allowed("http://127.0.0.1:21002", ())
