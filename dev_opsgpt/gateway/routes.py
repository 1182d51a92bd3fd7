"""How requests for each model are routed, as the configuration says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dev_opsgpt.routing.policies import POLICIES


@dataclass(frozen=True, slots=True)
class Route:
    """One model's route; the fields are those of ``config.RouteSettings``, which says what each
    means. What is None there because it comes from elsewhere is filled in here. ``reads`` names the
    fields of ``Asked`` that the dispatch policy looks at. Raises ``ValueError`` for a policy that
    does not exist."""

    dispatch_method: str = "prefix_cache"
    affinity_header: str = "x-session-id"
    request_timeout: float | None = None
    first_token_timeout: float | None = None
    retries: int = 2
    fallbacks: tuple[str, ...] = ()
    hedge_after: float | None = None
    queue_size: int = 1000
    queue_timeout: float = 60.0
    load_timeout: float = 300.0
    context_length: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    json_output: bool | None = None
    stream_usage: bool = True
    input_price: float = 0.0
    cached_input_price: float | None = None
    output_price: float = 0.0
    reads: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        """Looks the policy up."""
        if self.dispatch_method not in POLICIES:
            known = ", ".join(POLICIES)
            raise ValueError(f"no dispatch policy {self.dispatch_method!r}; there are {known}")
        object.__setattr__(self, "reads", POLICIES[self.dispatch_method].reads)

    @property
    def timed(self) -> bool:
        """Whether somebody waits for the first byte with a watch."""
        return not (self.hedge_after is self.first_token_timeout is None)


class Routes:
    """The routes by model: those of ``models``, and ``default`` for every other."""

    __slots__ = ("_models", "default")

    def __init__(self, default: Route, models: Mapping[str, Route]) -> None:
        self.default = default
        self._models = dict(models)

    def of(self, model: str) -> Route:
        """The route of a model."""
        return self._models.get(model, self.default)

    def policy_of(self, model: str) -> str:
        """The name of a model's dispatch policy."""
        return self.of(model).dispatch_method
