"""What changes in the units, told to a person."""

import time
from collections.abc import Collection, Sequence

from dev_opsgpt.config import Settings
from dev_opsgpt.launcher.display import Closing, Display, Example, Row
from dev_opsgpt.launcher.plan import LaunchPlan, engine_name
from dev_opsgpt.launcher.purpose import purpose_of
from dev_opsgpt.launcher.unit import Part, State, Unit
from dev_opsgpt.launcher.units import Units
from dev_opsgpt.routing.cards import Card

TAIL = 8
ON_DEMAND = "is loaded by its first request"


class Reporter:
    """Turns every change of a part's state into one line. ``closing`` mutes it: what stops while
    everything stops is no news."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._shown: dict[tuple[int, int], State] = {}
        self.closing = False

    def changed(self, unit: Unit) -> None:
        """A unit has changed."""
        if self.closing:
            return
        for part in unit.parts.values():
            key = (id(unit), part.port)
            before = self._shown.get(key, State.STARTING)
            self._shown[key] = part.state
            if part.state is not before:
                self._tell(unit, part, before)

    def _tell(self, unit: Unit, part: Part, before: State) -> None:
        name = part.worker.model if part.worker else unit.spec.name
        if part.state is State.READY:
            seconds = time.monotonic() - unit.started
            back = " again" if before is State.RESTARTING else f"  {seconds:.1f} s"
            self._display.done(f"{name}  {shown_address(unit, part)}{back}")
        elif part.state is State.STOPPED:
            self._display.note(f"{name} stopped")
        elif part.state is State.FAILED:
            self._display.trouble(f"{name} failed: {part.message} (log: {unit.log.path})")
        elif part.state is State.RESTARTING:
            self._display.trouble(f"{name} {part.message}", unit.log.tail[-TAIL:])


def shown_address(unit: Unit, part: Part) -> str:
    """A part's address as people use it: the gateway's with OpenAI's base path."""
    return f"{part.address}/v1" if unit.spec.role == "gateway" else part.address


def closing_of(
    settings: Settings,
    plan: LaunchPlan,
    units: Units,
    registered: Collection[str],
    logs: str,
    cards: Sequence[Card],
    needs_key: bool,
) -> Closing:
    """The closing table. ``registered`` are the addresses that the controller lists, ``cards`` the
    models that can be loaded; ``needs_key`` says whether clients need one."""
    rows = [
        Row(", ".join(part.worker.names), part.worker.served_by, part.address, state)
        for unit in units
        for part in unit.parts.values()
        if part.worker is not None
        for state in [_state(part, registered)]
    ]
    for model in plan.attached:
        server = model.worker.openai_server or ""
        state = "ready" if server in registered else "does not answer yet"
        rows.append(Row(", ".join(model.served_names), "OpenAI server", server, state))
    there = {part.worker.model for unit in units for part in unit.parts.values() if part.worker}
    rows += [
        Row(", ".join(card.names), engine_name(settings.plan_for(card.name)), "", ON_DEMAND)
        for card in cards
        if card.on_demand and card.name not in there
    ]
    usable = [row.model.split(", ")[0] for row in rows if row.state in ("ready", ON_DEMAND)]
    return Closing(
        rows=rows,
        base_url=f"{plan.gateway}/v1" if plan.gateway else None,
        controller=plan.controller,
        logs=logs,
        needs_key=needs_key,
        example=_example(settings, usable[0]) if usable else None,
    )


def _example(settings: Settings, name: str) -> Example:
    """A request for the model that clients call so."""
    plans = [settings.plan_for(model) for model in settings.startable_models()]
    plan = next((plan for plan in plans if name in plan.served_names), None)
    return Example(name, "chat" if plan is None else purpose_of(plan))


def _state(part: Part, registered: Collection[str]) -> str:
    if part.state is not State.READY:
        return f"{part.state.value}: {part.message}" if part.message else part.state.value
    if part.worker is not None and not part.worker.registers:
        return "ready, not registered (no_register)"
    return "ready" if part.address in registered else "the controller does not know it yet"
