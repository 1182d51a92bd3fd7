import socket

import pytest

from dev_opsgpt.launcher.plan import Listen
from dev_opsgpt.launcher.ports import claim, is_free, taken
from dev_opsgpt.transport.server import PortInUse, bind
from tests.support.ports import free_ports


def test_one_line_for_each_port_with_its_key() -> None:
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        lines = taken([Listen("127.0.0.1", free, "A"), Listen("127.0.0.1", port, 'B["port"]')])
        assert len(lines) == 1
        assert f"127.0.0.1:{port}" in lines[0]
        assert 'B["port"]' in lines[0]
        assert "Stop the program" in lines[0]
        assert not is_free("127.0.0.1", port)
    assert is_free("127.0.0.1", free)


def test_address_of_another_machine_cannot_be_bound() -> None:
    (line,) = taken([Listen("192.0.2.1", 1234, "key")])
    assert "192.0.2.1:1234" in line
    assert "Change the host" in line
    assert "Stop the program" not in line


def test_port_that_several_may_listen_on_is_one_launchers() -> None:
    (port,) = free_ports(1)
    listen = Listen("127.0.0.1", port, 'FSCHAT_OPENAI_API["port"]')
    with claim(listen):
        with pytest.raises(PortInUse, match="another launcher") as caught:
            claim(listen)
        assert f"127.0.0.1:{port}" in str(caught.value)
        claim(Listen("127.0.0.2", port, "")).close()
    claim(listen).close()


def test_port_that_is_shared_is_taken_for_everybody_else() -> None:
    with bind("127.0.0.1", 0, reuse_port=True) as sock:
        sock.listen()
        assert not is_free("127.0.0.1", sock.getsockname()[1])
