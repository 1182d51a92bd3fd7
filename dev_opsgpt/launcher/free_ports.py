"""Models planned on ports that are free now."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

from dev_opsgpt.config import ModelPlan, Settings
from dev_opsgpt.launcher.ports import is_free

LAST_PORT = 65_535


def on_free_ports(
    settings: Settings,
    models: Sequence[str],
    replicas: int | None,
    taken: set[int],
    failures: dict[str, str],
) -> Iterator[ModelPlan]:
    """The models' plans, ``replicas`` of each if not as many as configured, on their own ports
    where these are free, and on none that is ``taken``. A model for which there are not enough is
    left out, and has a reason in ``failures``."""
    for model in models:
        plan = settings.plan_for(model, taken)
        count = len(plan.ports) if replicas is None else replicas
        ports = tuple(islice(_free_ports(plan, taken), count))
        if len(ports) < count:
            failures[model] = "there is no free port for it"
            continue
        taken.update(ports)
        yield replace(plan, ports=ports)


def _free_ports(plan: ModelPlan, taken: Collection[int]) -> Iterator[int]:
    host = plan.worker.host
    candidates = chain(plan.ports, range(max(plan.ports) + 1, LAST_PORT + 1))
    return (port for port in candidates if port not in taken and is_free(host, port))
