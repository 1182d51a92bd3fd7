import pytest
from pydantic import ValidationError

from dev_opsgpt.config.servers import ControllerSettings, GatewaySettings


def test_defaults() -> None:
    controller, gateway = ControllerSettings(), GatewaySettings()
    assert (controller.host, controller.port, controller.dispatch_method) == (
        "127.0.0.1",
        20001,
        "prefix_cache",
    )
    assert (gateway.host, gateway.port, gateway.max_body_size) == ("127.0.0.1", 8888, 32 * 1024**2)
    assert (gateway.connect_timeout, gateway.read_timeout, gateway.retries) == (5.0, 600.0, 2)


def test_api_keys_plain_or_hashed() -> None:
    keys = ["opsgpt-plain", "sha256:" + "0f" * 32]
    gateway = GatewaySettings.model_validate({"api_keys": keys})
    assert [key.get_secret_value() for key in gateway.api_keys] == keys
    assert "opsgpt-plain" not in repr(gateway)


@pytest.mark.parametrize("key", ["", "  ", "sha256:", "sha256:abc", "sha256:" + "g" * 64])
def test_malformed_api_keys(key: str) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings.model_validate({"api_keys": [key]})
