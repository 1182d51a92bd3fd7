"""Requests made by hand, most of them wrong: each is refused or answered, and never waited for."""

import pytest

from tests.fuzz.target import FRONTS, HOT, Answers, Front, Target, chat, chunks, exchange

LARGE = b"a" * 70_000
# One of each kind: answered without ASGI, by FastAPI, and by the two other parts.
KINDS = ("hot", "page", "worker", "controller")


def head(*lines: bytes, first: bytes = b"GET /health HTTP/1.1", host: bool = True) -> bytes:
    """A request without a body."""
    found = [first, *([b"Host: a"] if host else []), *lines]
    return b"\r\n".join(found) + b"\r\n\r\n"


def wrong_framing(front: Front) -> dict[str, bytes]:
    """Requests whose end could be read in two ways, or in none."""
    length = b"%d" % len(front.body)
    wire = chunks(front.body)

    def sized(value: bytes) -> bytes:
        return front.post(b"Content-Length:" + value, length=False)

    def coded(*values: bytes) -> bytes:
        lines = [b"Transfer-Encoding:" + value for value in values]
        return front.post(*lines, body=wire, length=False)

    def chunk(data: bytes) -> bytes:
        return front.chunked(body=data)

    return {
        "two lengths": front.post(b"Content-Length: 1"),
        "the same length twice": front.post(b"Content-Length: " + length),
        "a list of lengths": sized(b" %b, %b" % (length, length)),
        "length and chunks": front.post(b"Transfer-Encoding: chunked", body=wire),
        "negative length": sized(b" -5"),
        "length with a plus": sized(b" +5"),
        "hexadecimal length": sized(b" 0x5"),
        "length with a point": sized(b" 5.0"),
        "two numbers": sized(b" 5 5"),
        "underscore in a length": sized(b" 6_2"),
        "no length in the length": sized(b""),
        "length over two lines": sized(b" 6\r\n 2"),
        "length past 64 bits": sized(b" 99999999999999999999999"),
        "gzip": coded(b" gzip"),
        "not quite chunked": coded(b" xchunked"),
        "chunked twice": coded(b" chunked", b" chunked"),
        "chunked twice in one line": coded(b" chunked, chunked"),
        "chunked is not last": coded(b" chunked, identity"),
        "identity after chunked": coded(b" chunked", b" identity"),
        "identity before chunked": coded(b" identity", b" chunked"),
        "identity and chunked": coded(b" identity, chunked"),
        "gzip and chunked": coded(b" gzip, chunked"),
        "vertical tab before chunked": coded(b" \x0bchunked"),
        "parameter of chunked": coded(b" chunked;q=1"),
        "quoted chunked": coded(b' "chunked"'),
        "no encoding": coded(b""),
        "encoding on the next line": coded(b"\r\n chunked"),
        "space before the colon": front.post(b"Transfer-Encoding : chunked", length=False),
        "chunks in HTTP/1.0": front.chunked(version=b"HTTP/1.0"),
        "negative chunk": chunk(b"-1\r\nab\r\n0\r\n\r\n"),
        "chunk of 0x": chunk(b"0x5\r\nabcde\r\n0\r\n\r\n"),
        "chunk past 64 bits": chunk(b"fffffffffffffffff\r\nab\r\n0\r\n\r\n"),
        "chunk without a size": chunk(b"\r\n" + wire),
        "chunk with a space": chunk(b"5 \r\nabcde\r\n0\r\n\r\n"),
        "chunk ends in LF": chunk(b"5\nabcde\r\n0\r\n\r\n"),
        "chunk's data ends in LF": chunk(b"5\r\nabcde\n0\r\n\r\n"),
        "chunk's data does not end": chunk(b"5\r\nabcde0\r\n\r\n"),
        "chunk longer than its size": chunk(b"5\r\nabcdeXX\r\n0\r\n\r\n"),
        "LF in a chunk's name": chunk(b"5;a\n\r\nabcde\r\n0\r\n\r\n"),
        "LF instead of a chunk's name": chunk(b"5;\nxx\r\nabcde\r\n0\r\n\r\n"),
        "trailer without a colon": chunk(wire[:-2] + b"foo\r\n\r\n"),
        "trailer frames the body anew": chunk(
            wire[:-2] + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
        ),
    }


def wrong_lines(front: Front) -> dict[str, bytes]:
    """Requests whose lines are none."""
    return {
        "LF only": front.post().replace(b"\r\n", b"\n"),
        "LF after a header": head(b"X: y\nZ: z"),
        "LF after the first line": b"GET /health HTTP/1.1\nHost: a\r\n\r\n",
        "LF at the end": b"GET /health HTTP/1.1\r\nHost: a\r\n\n",
        "CR only": b"GET /health HTTP/1.1\rHost: a\r\r",
        "CR in a value": head(b"X: a\rb"),
        "NUL in a value": head(b"X: a\0b"),
        "control in a value": head(b"X: a\x01b"),
        "DEL in a value": head(b"X: a\x7fb"),
        "NUL in a name": head(b"X\0: ab"),
        "space in a name": head(b"X A: ab"),
        "space after a name": head(b"X : ab"),
        "space before a name": b"GET /health HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n",
        "folded value": head(b"X: a\r\n b"),
        "no colon": head(b"foo"),
        "no name": head(b": foo"),
        "no host": head(host=False),
        "two hosts": head(b"Host: b"),
        "two hosts, one in capitals": head(b"HOST: b"),
        "a host that is none": head(b"Host: a b", host=False),
        "a host with a path": head(b"Host: a/b", host=False),
        "a host with a user": head(b"Host: a@b", host=False),
    }


def wrong_first_lines(front: Front) -> dict[str, bytes]:
    """Requests whose first line is none, or of something that is not spoken here."""
    return {
        "space at the end": head(first=b"GET /health HTTP/1.1 "),
        "space at the start": head(first=b" GET /health HTTP/1.1"),
        "tabs": head(first=b"GET\t/health\tHTTP/1.1"),
        "NUL in the target": head(first=b"GET /heal\0th HTTP/1.1"),
        "target not in ASCII": head(first=b"GET /h\xe9alth HTTP/1.1"),
        "target with a fragment": head(first=b"GET /health#a HTTP/1.1"),
        "target with a fragment, of a POST": front.post().replace(b" HTTP/1.1", b"#a HTTP/1.1", 1),
        "target without a slash": head(first=b"GET health HTTP/1.1"),
        "target without a scheme": head(first=b"GET ://health HTTP/1.1"),
        "target without a host": head(first=b"GET http:///health HTTP/1.1"),
        "CONNECT": head(first=b"CONNECT a:443 HTTP/1.1"),
        "CONNECT to a path": head(first=b"CONNECT /health HTTP/1.1"),
        "method in small letters": head(first=b"get /health HTTP/1.1"),
        "method of nobody": head(first=b"FROB /health HTTP/1.1"),
        "HTTP/0.9 without a version": b"GET /health\r\n\r\n",
        "HTTP/0.9": head(first=b"GET /health HTTP/0.9"),
        "HTTP/1.2": head(first=b"GET /health HTTP/1.2"),
        "HTTP/2.0": head(first=b"GET /health HTTP/2.0"),
        "HTTP/3.0": head(first=b"GET /health HTTP/3.0"),
        "HTTP/11.1": head(first=b"GET /health HTTP/11.1"),
        "HTTP/1.01": head(first=b"GET /health HTTP/1.01"),
        "http/1.1": head(first=b"GET /health http/1.1"),
        "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
        "SSH": b"SSH-2.0-OpenSSH_9.0\r\n",
        "SMTP": b"EHLO a\r\n",
    }


def too_large(front: Front) -> dict[str, bytes]:
    """Requests whose head is too large."""
    return {
        "first line": head(first=b"GET /" + LARGE + b" HTTP/1.1"),
        "first line without an end": b"GET /" + LARGE,
        "header": head(b"X: " + LARGE),
        "name of a header": head(LARGE + b": x"),
        "header without an end": b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + LARGE,
        "many headers": head(*(b"X%d: a" % number for number in range(20_000))),
    }


def refused(found: Answers, status: int) -> None:
    assert found.statuses == [status], found.all
    assert found.closed
    error = found.all[0].error()
    assert error["code"] == ("headers_too_large" if status == 431 else "invalid_http")
    assert found.all[0].headers[b"connection"] == b"close"
    assert found.all[0].headers[b"x-request-id"].startswith(b"req-")


def works(front: Front, target: Target) -> None:
    """The next request is answered as if nothing had been."""
    assert exchange(front.port(target), front.post(), answers=1).statuses == [200]


WRONG = {name: of for of in (wrong_framing, wrong_lines, wrong_first_lines) for name in of(HOT)}


@pytest.mark.parametrize("front", KINDS)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_http_is_refused(keyed: Target, front: str, name: str) -> None:
    asked = FRONTS[front]
    before = len(keyed.asked)
    refused(exchange(asked.port(keyed), WRONG[name](asked)[name]), 400)
    assert len(keyed.asked) == before
    works(asked, keyed)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("name", too_large(HOT))
def test_a_head_too_large_is_refused(keyed: Target, front: str, name: str) -> None:
    refused(exchange(FRONTS[front].port(keyed), too_large(FRONTS[front])[name]), 431)


def odd(front: Front) -> dict[str, tuple[bytes, int]]:
    """Requests that are unusual and yet HTTP, and what they get. These clients exist."""
    wire = chunks(front.body)
    named = front.body.join((b'%x;a=b;c="d"\r\n' % len(front.body), b"\r\n0;x\r\n\r\n"))
    form = front.post().replace(b"POST /", b"POST http://a:1/", 1)
    upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQ")
    return {
        "chunks": (front.chunked(), 200),
        "encoding in capitals": (front.chunked().replace(b"chunked", b"CHUNKED"), 200),
        "encoding after a tab": (front.chunked().replace(b" chunked", b"\tchunked "), 200),
        "names of chunks": (front.chunked(body=named), 200),
        "trailers": (front.chunked(body=wire[:-2] + b"X-Sum: 1\r\n\r\n"), 200),
        "header that is no encoding": (front.post(b"Transfer_Encoding: chunked"), 200),
        "a nought before the length": (front.post().replace(b"-Length: ", b"-Length: 0"), 200),
        "empty lines before": (b"\r\n\r\n" + front.post(), 200),
        "spaces in the first line": (front.post().replace(b" HTTP/", b"   HTTP/", 1), 200),
        "absolute target": (form, 200),
        "query": (front.post().replace(b" HTTP/", b"?a=b HTTP/", 1), 200),
        "empty host": (front.post().replace(b"Host: a", b"Host:"), 200),
        "no host in HTTP/1.0": (
            front.post(version=b"HTTP/1.0").replace(b"Host: a\r\n", b""),
            200,
        ),
        "leave to go on": (front.post(b"Expect: 100-continue"), 200),
        "another expectation": (front.post(b"Expect: 200-ok"), 200),
        "a list of expectations": (front.post(b"Expect: 100-continue, a"), 200),
        "an upgrade to HTTP/2": (front.post(b"Upgrade: h2c", *upgrade), 200),
        "an upgrade to HTTP/2 in chunks": (front.chunked(b"Upgrade: h2c", *upgrade), 200),
        "an upgrade to a websocket": (
            front.post(b"Upgrade: websocket", b"Connection: upgrade"),
            200,
        ),
        "an upgrade that is not meant": (front.post(b"Upgrade: h2c"), 200),
        "every byte a packet": (front.post(), 200),
        "target of a server": (head(first=b"OPTIONS * HTTP/1.1"), 404),
        "method of a cache": (front.post().replace(b"POST", b"PURGE", 1), 405),
        "body where none belongs": (front.post().replace(b"POST", b"PUT", 1), 405),
        "path with NUL": (head(first=b"GET /nowhere/%00%ff%zz HTTP/1.1"), 404),
        "path that climbs": (head(first=b"GET /../../etc/passwd HTTP/1.1"), 404),
    }


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("name", odd(HOT))
def test_what_is_unusual_is_answered(keyed: Target, front: str, name: str) -> None:
    asked = FRONTS[front]
    data, status = odd(asked)[name]
    pieces = [data[i : i + 1] for i in range(len(data))] if "packet" in name else [data]
    found = exchange(asked.port(keyed), *pieces, answers=1, more=True)
    assert found.statuses == [status], found.all
    assert found.closed == ("HTTP/1.0" in name)
    interim = [answer.status for answer in found.all if answer.status < 200]
    # An application that reads no body asks for none.
    assert interim in ([100], []) if name == "leave to go on" else interim == []


@pytest.mark.parametrize("front", KINDS)
@pytest.mark.parametrize("name", odd(HOT))
def test_where_a_packet_ends_means_nothing(keyed: Target, front: str, name: str) -> None:
    asked = FRONTS[front]
    data, status = odd(asked)[name]
    end = data.index(b"\r\n\r\n", 4) + 4
    for cut in (end - 2, end, end + 1):
        pieces = [piece for piece in (data[:cut], data[cut:]) if piece]
        found = exchange(asked.port(keyed), *pieces, answers=1)
        assert found.statuses == [status], (cut, found.all)


def unfinished(front: Front) -> dict[str, bytes]:
    """Requests of which more has to come."""
    return {
        "nothing": b"",
        "half a head": front.post()[:30],
        "a body shorter than its length": front.post()[:-1],
        "a length past all sense": front.post(b"Content-Length: 9999999999999", length=False),
        "a chunk of all memory": front.chunked(body=b"ffffffffffffffff\r\nab\r\n0\r\n\r\n"),
        "a chunk without an end": front.chunked(body=chunks(front.body)[:-7]),
        "no last chunk": front.chunked(body=chunks(front.body)[:-5]),
        "no end of the trailers": front.chunked(body=chunks(front.body)[:-2]),
    }


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("name", unfinished(HOT))
def test_what_is_not_whole_is_not_begun(keyed: Target, front: str, name: str) -> None:
    asked = FRONTS[front]
    before = len(keyed.asked)
    found = exchange(asked.port(keyed), unfinished(asked)[name], patience=0.05)
    assert found.statuses in ([], [413])
    assert len(keyed.asked) == before
    works(asked, keyed)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("kind", ["name of a chunk", "trailer", "trailers", "many chunks' names"])
def test_wrapping_without_end_is_refused(keyed: Target, front: str, kind: str) -> None:
    asked = FRONTS[front]
    body = asked.body
    pieces = {
        "name of a chunk": b"5;" + b"a" * 300_000,
        "trailer": chunks(body)[:-2] + b"X: " + b"a" * 300_000,
        "trailers": chunks(body)[:-2] + b"X: a\r\n" * 60_000,
        "many chunks' names": b"1;%b\r\n{\r\n" % (b"a" * 1000) * 300,
    }[kind]
    data = asked.chunked(body=pieces)
    parts = [data[i : i + 30_000] for i in range(0, len(data), 30_000)]
    found = exchange(asked.port(keyed), *parts)
    assert found.statuses in ([431], [])
    assert found.closed


@pytest.mark.parametrize("name", ["hot", "worker"])
def test_small_chunks_are_no_wrapping(keyed: Target, name: str) -> None:
    front = FRONTS[name]
    body = chat("small " * 5_000)
    data = front.chunked(body=b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    parts = [data[i : i + 20_000] for i in range(0, len(data), 20_000)]
    assert exchange(front.port(keyed), *parts, answers=1).statuses == [200]
