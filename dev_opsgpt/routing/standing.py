"""Where a model stands, put together for those who ask. Pure."""

from dev_opsgpt.routing.cards import Phase, Standing
from dev_opsgpt.routing.failures import Failure
from dev_opsgpt.routing.residents import Residents


def phase_of(
    residents: Residents, model: str, waits: str | None, failure: Failure | None, now: float
) -> Phase:
    """``waits`` is why a model that is wanted is not being loaded, None where nobody wants it;
    ``failure`` what went wrong when it was tried last. That is told until it is tried again, which
    a request may do when its time has come; so is what a launcher tells of a model that was to run
    from the start."""
    there = [resident for _, resident in residents.of(model)]
    if any(residents.ready(resident) for resident in there):
        return "loaded"
    states = {part.state for r in there for part in r.parts if not r.leaving}
    if any(r.ordered for r in there) or states & {"starting", "ready"}:
        return "loading"
    if "restarting" in states:
        return "restarting"
    if waits is not None:
        return "waiting"
    if failure is not None and (now < failure.until or not there):
        return "failed"
    if there:
        return "unloading"
    return "failed" if residents.failure(model) else "unloaded"


def standing_of(
    residents: Residents,
    model: str,
    *,
    loadable: bool,
    waits: str | None,
    failure: Failure | None,
    now: float,
) -> Standing | None:
    """The same, and what else there is to tell; None for a model that no launcher knows."""
    cards = [host.cards[model] for host in residents.hosts.values() if model in host.cards]
    there = list(residents.of(model))
    if not cards and not there:
        return None
    phase = phase_of(residents, model, waits, failure, now)
    parts = [part for _, resident in there for part in resident.parts]
    dying = max((part for part in parts if part.died), key=lambda part: part.deaths, default=None)
    message = {
        "restarting": f"its process {dying.died if dying else 'has died'}, and is started again",
        "waiting": waits or "",
        "failed": failure.message if failure is not None else residents.failure(model),
        "unloaded": "out of service" if residents.released(model) else "",
    }.get(phase, "")
    left = failure.until - now if failure is not None and phase == "failed" else 0.0
    starting = next((part for part in parts if part.state == "starting"), None)
    loading = starting if phase == "loading" else None
    return Standing(
        name=model,
        names=(cards[0] if cards else there[0][1].card).names,
        phase=phase,
        loadable=loadable and phase != "restarting",
        doing=loading.doing if loading else "",
        fraction=loading.fraction if loading else None,
        seconds=loading.seconds if loading else None,
        replicas=sum(part.state == "ready" for part in parts),
        memory=residents.told(model),
        launchers=tuple(launcher for launcher, _ in there),
        message=message,
        retry_after=left if left > 0 else None,
        deaths=dying.deaths if dying and phase == "restarting" else 0,
    )
