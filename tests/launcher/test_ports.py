import socket

from dev_opsgpt.launcher.plan import Listen
from dev_opsgpt.launcher.ports import is_free, taken
from tests.launcher.stack import free_ports


def test_one_line_for_each_port_with_its_key() -> None:
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        lines = taken([Listen("127.0.0.1", free, "A"), Listen("127.0.0.1", port, 'B["port"]')])
        assert len(lines) == 1
        assert f"127.0.0.1:{port}" in lines[0]
        assert 'B["port"]' in lines[0]
        assert not is_free("127.0.0.1", port)
    assert is_free("127.0.0.1", free)


def test_address_of_another_machine_cannot_be_bound() -> None:
    (line,) = taken([Listen("192.0.2.1", 1234, "key")])
    assert "192.0.2.1:1234" in line
