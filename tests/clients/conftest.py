"""The service that the clients talk to: the same one as the conformance suite's."""

import pytest

from tests.conformance.service import Service, shared_service


@pytest.fixture(scope="session")
def service(request: pytest.FixtureRequest) -> Service:
    """The running service."""
    return shared_service(request.config)


@pytest.fixture(scope="session")
def base_url(service: Service) -> str:
    """The OpenAI API."""
    return f"{service.gateway}/v1"
