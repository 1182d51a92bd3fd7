from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.request_id import RequestIds, new_prefix
from dev_opsgpt.transport.request_id import accepted


def test_new_ids_differ_and_are_acceptable() -> None:
    ids = [RequestIds(new_prefix()) for _ in range(3)]
    made = [one.of(None) for one in ids for _ in range(100)]
    assert len(set(made)) == 300
    assert all(accepted(each.encode()) == each for each in made)


def test_a_clients_own_id_is_kept() -> None:
    ids = RequestIds("req-1-")
    for given_id in ("6f0d3c1e-2d4b-4b6f-9a53-0c6b8a9f0d11", "a" * 128, "job:7/step=2@eu+1"):
        assert ids.of(given_id.encode()) == given_id
    assert ids.of(None) == "req-1-1"


@given(st.binary(max_size=200))
def test_what_is_not_safe_to_repeat_is_replaced(header: bytes) -> None:
    found = RequestIds("req-1-").of(header)
    assert 0 < len(found) <= 128
    assert found.isascii()
    assert not set(found) & set(" \r\n\t\"'<>\\,;{}\0")
    assert found == "req-1-1" or found.encode() == header


def test_two_ids_in_one_header_are_none() -> None:
    assert accepted(b"one, two") is None
    assert accepted(b"a" * 129) is None
    assert accepted(b"") is None
