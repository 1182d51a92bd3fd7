"""The gateway's routes that are not hot: models, token check, health, and the API's own pages."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from dev_opsgpt import __version__
from dev_opsgpt.gateway.auth import Caller, Keys
from dev_opsgpt.gateway.bodies import explain, held, no_json
from dev_opsgpt.gateway.openapi import describe
from dev_opsgpt.gateway.standings import Standings
from dev_opsgpt.gateway.upstreams import Upstreams
from dev_opsgpt.protocol import errors
from dev_opsgpt.protocol.errors import (
    ApiError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    UpstreamFailed,
)
from dev_opsgpt.protocol.fastchat import CountTokenReply, ModelDetails
from dev_opsgpt.routing.fleet import Fleet

Clock = Callable[[], float]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class TokenCheckItem(BaseModel):
    """One question: does the prompt, with ``max_tokens`` of answer, fit the model?"""

    model: str
    prompt: str
    max_tokens: Annotated[int, Field(ge=0)]


class TokenCheck(BaseModel):
    """FastChat's ``/api/v1/token_check``."""

    prompts: Annotated[list[TokenCheckItem], Field(min_length=1, max_length=256)]


class Pages:
    """The routes' handlers, over the same fleet as the hot path. ``max_body`` is the largest body
    that is read, in bytes."""

    def __init__(
        self,
        fleet: Fleet,
        standings: Standings,
        upstreams: Upstreams,
        clock: Clock,
        max_body: int,
    ) -> None:
        self.max_body = max_body
        self._fleet = fleet
        self._standings = standings
        self._upstreams = upstreams
        self._clock = clock
        self._started = int(time.time())

    def model(self, name: str) -> dict[str, Any]:
        """OpenAI's model object, and whether it is loaded. Raises ``ModelNotFound``."""
        if name not in self._names():
            raise ModelNotFound(f"The model '{name}' does not exist.", param="model")
        return self._shown(name)

    def models(self, caller: Caller) -> dict[str, Any]:
        """OpenAI's list of models: those that the caller may use."""
        names = filter(caller.may_use, self._names())
        return {"object": "list", "data": [self._shown(name) for name in names]}

    def _names(self) -> list[str]:
        return sorted({*self._fleet.models(), *self._standings.names()})

    def _shown(self, name: str) -> dict[str, Any]:
        serves = bool(self._fleet.ready(name, self._clock()))
        card = {"id": name, "object": "model", "created": self._started, "owned_by": "opsgpt"}
        return card | self._standings.shown(name, serves)

    def health(self) -> dict[str, Any]:
        """Whether requests can be answered, and by how many replicas of which model."""
        models = {
            name: len(self._fleet.ready(name, self._clock())) for name in self._fleet.models()
        }
        return {"status": "ok", "version": __version__, "models": models}

    async def token_check(self, body: TokenCheck) -> dict[str, Any]:
        """FastChat's answer: for each prompt whether it fits, its tokens, the model's context."""
        checked = await asyncio.gather(*(self._check(item) for item in body.prompts))
        return {"prompts": checked}

    async def _check(self, item: TokenCheckItem) -> dict[str, Any]:
        details, counted = await asyncio.gather(
            self._ask(item.model, "/model_details", {"model": item.model}, ModelDetails),
            self._ask(
                item.model,
                "/count_token",
                {"model": item.model, "prompt": item.prompt},
                CountTokenReply,
            ),
        )
        fits = counted.count + item.max_tokens <= details.context_length
        return {
            "fits": fits,
            "tokenCount": counted.count,
            "contextLength": details.context_length,
        }

    async def _ask(self, model: str, path: str, body: dict[str, Any], type_: type[Any]) -> Any:
        candidates = self._fleet.ready(model, self._clock())
        candidates = [r for r in candidates if r.row.kind != "openai"]
        if not candidates:
            self.model(model)
            raise InvalidRequest(f"The server of '{model}' cannot count tokens.", param="model")
        data = msgspec.json.encode(body)
        response = await self._upstreams.ask(candidates[0], path, data)
        reply = await response.read(1 << 20)
        try:
            return msgspec.json.decode(reply, type=type_)
        except msgspec.MsgspecError:
            raise UpstreamFailed(f"The worker of '{model}' could not tell.") from None


def create_pages(pages: Pages, keys: Keys) -> FastAPI:
    """The application of these routes. Its errors are in OpenAI's shape; ``/docs`` works
    offline."""
    app: FastAPI = FastAPIOffline(
        title="OpsGPT Serve",
        version=__version__,
        redoc_url=None,
        # A redirect would be made of the host that the client names.
        redirect_slashes=False,
    )

    @app.get("/v1/models", tags=["models"])
    async def list_models(request: Request) -> dict[str, Any]:
        """The models that can be asked for, by the key that asks."""
        return pages.models(keys.check(request.scope))

    @app.get("/v1/models/{name:path}", tags=["models"])
    async def get_model(request: Request, name: str) -> dict[str, Any]:
        """One model."""
        keys.check(request.scope).check_model(name)
        return pages.model(name)

    bounded = APIRouter(route_class=_bounded(pages, keys))

    @bounded.post("/api/v1/token_check", tags=["FastChat"])
    async def token_check(request: Request, body: TokenCheck) -> dict[str, Any]:
        """Whether prompts fit their models."""
        caller = keys.check(request.scope)
        for item in body.prompts:
            caller.check_model(item.model)
        return await pages.token_check(body)

    @app.get("/health", tags=["health"])
    async def health() -> dict[str, Any]:
        """Whether the gateway lives, how many replicas each model has, and whether callers need a
        key."""
        return pages.health() | {"needs_key": keys.needed}

    app.include_router(bounded)
    _errors(app)
    describe(app)
    return app


def _bounded(pages: Pages, keys: Keys) -> type[APIRoute]:
    """Routes that look at the key before they read the body, and read so much of it only."""

    class Bounded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def bounded(request: Request) -> Response:
                keys.check(request.scope)
                return await handle(await held(request, pages.max_body))

            return bounded

    return Bounded


def _errors(app: FastAPI) -> None:
    def answer(request: Request, error: Exception) -> JSONResponse:
        known = _as_api_error(request, error)
        return JSONResponse(errors.openai_body(known), known.status, headers=errors.headers(known))

    for kind in (ApiError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)


def _as_api_error(request: Request, error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return explain(error)
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 400:
        # No UTF-8, or nested too deeply.
        return no_json()
    if status == 405:
        headers = {"allow": ", ".join(_methods(request))}
        return MethodNotAllowed("This path does not answer that method.", headers=headers)
    return NotFound("There is no such path here; /docs lists the routes.")


def _methods(request: Request) -> list[str]:
    """The methods that a path does answer."""
    others = [{**request.scope, "method": name} for name in _METHODS]
    routes = request.app.routes
    return [
        scope["method"]
        for scope in others
        if any(route.matches(scope)[0] is Match.FULL for route in routes)
    ]
