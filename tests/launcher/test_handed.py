import socket
import threading

import pytest

from dev_opsgpt.config import ConfigError, Settings
from dev_opsgpt.launcher.handed import Handed, pack, receive


def handed(number: int = 0, **extras: object) -> Handed:
    cloud = {"provider": "P", "api_key": "hush", **extras}
    settings = Settings.model_validate({"ONLINE_LLM_MODEL": {"cloud": cloud}})
    return Handed(settings, ("gateway", "--port", "1"), number)


def test_everything_arrives_as_it_was() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = [handed(1, own=(1, {2})), handed(2)]
        ours.sendall(b"".join(map(pack, sent)))
        ours.close()
        assert [receive(theirs), receive(theirs)] == sent
        assert receive(theirs) is None


def test_large_configuration_comes_in_pieces() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = handed(own="x" * 5_000_000)
        thread = threading.Thread(target=ours.sendall, args=(pack(sent),))
        thread.start()
        assert receive(theirs) == sent
        thread.join()


def test_half_of_one_is_none() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(pack(handed())[:-1])
        ours.close()
        assert receive(theirs) is None


def test_what_is_no_plain_data_is_told() -> None:
    with pytest.raises(ConfigError, match="no plain data") as caught:
        pack(handed(own=lambda: None))
    assert "hush" not in str(caught.value)
