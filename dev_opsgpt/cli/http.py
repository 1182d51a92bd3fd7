"""HTTP for commands: every failure is one clear line."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.config import is_loopback

TIMEOUT = 10.0
# An answer may take its time between two pieces; a connection may not.
PATIENT = httpx.Timeout(TIMEOUT, read=600.0)


class Api:
    """Calls to one server; ``token`` is sent as a Bearer token. Every method raises
    ``CliError``. ``refused`` tells the user what to do about a 401."""

    def __init__(self, base_url: str, token: str | None, refused: str) -> None:
        host = urlsplit(base_url).hostname
        if urlsplit(base_url).scheme not in ("http", "https") or not host:
            raise CliError(f"not a URL such as http://127.0.0.1:8888/v1: {base_url}")
        self._base_url = base_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._refused = refused
        # A proxy of the environment does not know this machine's own ports.
        self._trust_env = not is_loopback(host)

    def get(self, path: str) -> Any:
        """The JSON answer of a GET."""
        with self._ask("GET", path, None, httpx.Timeout(TIMEOUT)) as response:
            return _json(response)

    def models(self) -> list[str]:
        """The names that ``/models`` lists."""
        try:
            return [str(model["id"]) for model in self.get("/models")["data"]]
        except (KeyError, TypeError):
            raise CliError(f"{self._base_url} does not list its models as OpenAI does.") from None

    def post(self, path: str, body: Any) -> Any:
        """The JSON answer of a POST, however long it takes."""
        with self._ask("POST", path, body, PATIENT) as response:
            return _json(response)

    def stream(self, path: str, body: Any) -> Generator[bytes, None, None]:
        """The pieces of a POST's answer as they come. Closing the iterator ends the answer."""
        with self._ask("POST", path, body, PATIENT) as response:
            yield from response.iter_bytes()

    @contextmanager
    def _ask(
        self, method: str, path: str, body: Any, timeout: httpx.Timeout
    ) -> Iterator[httpx.Response]:
        url = self._base_url + path
        try:
            with (
                httpx.Client(
                    headers=self._headers, timeout=timeout, trust_env=self._trust_env
                ) as client,
                client.stream(method, url, json=body) as response,
            ):
                if response.status_code != 200:
                    response.read()
                    raise CliError(self._reason(response))
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise CliError(
                f"Nobody answers at {self._base_url}. Is the service running (python start.py)?"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            reason = str(error) or type(error).__name__
            raise CliError(f"The call to {url} failed: {reason}") from None

    def _reason(self, response: httpx.Response) -> str:
        if response.status_code == 401:
            return f"{self._base_url} refused the credentials. {self._refused}"
        try:
            message = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = response.text[:200] or "no reason given"
        return f"{self._base_url} answered {response.status_code}: {message}"


def _json(response: httpx.Response) -> Any:
    response.read()
    try:
        return response.json()
    except ValueError:
        raise CliError(f"{response.url} did not answer in JSON.") from None
