"""The configuration that is in force in a running service, and how another takes its place."""

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from pydantic import SecretStr

from dev_opsgpt.config import ConfigError, Problem, Settings, check_settings
from dev_opsgpt.config.changes import Changes, changes, held
from dev_opsgpt.launcher import roles
from dev_opsgpt.launcher.catalogue import cards
from dev_opsgpt.launcher.client import CallFailed
from dev_opsgpt.launcher.gateways import PATIENCE, Gateways
from dev_opsgpt.launcher.handed import Handed, pack
from dev_opsgpt.launcher.models import Models
from dev_opsgpt.launcher.outcomes import Line
from dev_opsgpt.launcher.plan import (
    LaunchPlan,
    Listen,
    ProcessSpec,
    Role,
    Selection,
    make_plan,
    selected,
)
from dev_opsgpt.launcher.ports import claim, taken
from dev_opsgpt.launcher.reload import Work
from dev_opsgpt.launcher.replacing import Replacing
from dev_opsgpt.launcher.reports import Reports
from dev_opsgpt.launcher.units import Units
from dev_opsgpt.routing.cards import Card
from dev_opsgpt.transport.server import PortInUse

_MODEL_TABLES = ("llm_model_dict[", "VLLM_MODEL_DICT[")
_SECTIONS: Mapping[str, Role] = {
    "FSCHAT_CONTROLLER": "controller",
    "FSCHAT_OPENAI_API": "gateway",
}


def problems_of(settings: Settings, selection: Selection) -> list[Problem]:
    """What is wrong or doubtful about that of the configuration which is started here."""
    if not selection.controller or selection.controller_address is not None:
        # A controller elsewhere knows workers that are none of this configuration's.
        address = selection.controller_address or settings.controller_address
        gateway = settings.gateway.model_copy(update={"controller_address": address})
        settings = settings.model_copy(update={"gateway": gateway})
    return [p for p in check_settings(settings) if _concerns(p, selection)]


def _concerns(problem: Problem, selection: Selection) -> bool:
    if problem.key.startswith("FSCHAT_CONTROLLER"):
        return selection.controller and selection.controller_address is None
    if problem.key.startswith("FSCHAT_OPENAI_API"):
        return selection.gateway
    if problem.key.startswith(_MODEL_TABLES):
        named = selection.models
        return selection.local and (
            named is None or any(f'["{name}"]' in problem.key for name in named)
        )
    return True


def gateway_port(plan: LaunchPlan) -> Listen | None:
    """Where the gateways of a plan listen."""
    return next((spec.listen for spec in plan.processes if spec.role == "gateway"), None)


class InForce:
    """The settings by which one launcher runs, and its plan made from them.

    ``read`` are the settings as the files and the environment have them; ``name`` is the
    launcher's, ``run_dir`` the folder that its processes share. ``published`` is called with a plan
    that has moved the gateway. Raises ``ConfigError`` for settings that cannot be used.
    """

    def __init__(self, read: Settings, selection: Selection, name: str, run_dir: Path) -> None:
        self._read = read
        self._selection = selection
        self._name = name
        self._run_dir = run_dir
        self._claim: socket.socket | None = None
        self.published: Callable[[LaunchPlan], None] = lambda _: None
        self.settings = read
        self.plan = self._checked(read)

    def close(self) -> None:
        """Lets go of the gateways' port."""
        if self._claim is not None:
            self._claim.close()

    def begin(self, secret: str) -> None:
        """Fixes the cluster's secret, and makes sure that every port of the plan is free and that
        no other launcher takes the gateways'. Raises ``PortInUse``, with a line for each port."""
        self.settings = self._read.model_copy(update={"secret": SecretStr(secret)})
        self.plan = self._checked(self.settings)
        self._occupy([listen for spec in self.plan.processes for listen in spec.listens], self.plan)

    async def change(
        self, read: Settings, units: Units, gateways: Gateways, models: Models, reports: Reports
    ) -> Work:
        """Puts other settings in force: at once in what takes them in place; models follow by the
        work that this gives. Raises ``ConfigError`` and ``PortInUse``, and has then changed
        nothing."""
        settings = held(self.settings, read)
        plan = self._checked(settings)
        _check_attached(settings)
        found = changes(self._read, read, self._selection.models)
        listen, before = gateway_port(plan), gateway_port(self.plan)
        if listen is not None and listen != before:
            # On the same port the old gateways are in the way, and will make room.
            moved = before is None or listen.port != before.port
            self._occupy([listen] if moved else [], plan)
        self._read, self.settings, self.plan = read, settings, plan
        models.settings = settings
        lines = await _tell_controller(units, plan)
        specs = [spec for spec in plan.processes if spec.role == "gateway"]
        new = bool(found.new_gateways)
        lines += await gateways.apply(specs, settings.drain_timeout, replace=new)
        if listen != before and not gateways.owed:
            self.published(plan)
        lines += await _announce(reports)
        mine = [model.name for model in selected(settings, self._selection)]
        replacing = Replacing(models, units, settings, mine)
        told = _keys(found, {spec.role for spec in plan.processes}, owed=gateways.owed)
        return _finish([*told, *lines], replacing, found)

    def cards(self) -> list[Card]:
        """What can be loaded here. Who names the models to start wants no others."""
        chosen = self._selection
        on_demand = chosen.local and chosen.models is None
        return cards(self.settings, on_demand=on_demand)

    def differs(self, read: Settings) -> bool:
        """Whether other settings would change anything."""
        return bool(changes(self._read, read, self._selection.models))

    def _checked(self, settings: Settings) -> LaunchPlan:
        """The plan of settings that can be used. Raises ``ConfigError``."""
        faults = [p for p in problems_of(settings, self._selection) if p.severity == "error"]
        if faults:
            raise ConfigError(faults)
        pack(Handed(settings, ()))
        return make_plan(settings, self._selection, self._name, self._run_dir)

    def _occupy(self, listens: list[Listen], plan: LaunchPlan) -> None:
        claimed = None
        if (listen := gateway_port(plan)) is not None:
            claimed = claim(listen)
        if busy := taken(listens):
            if claimed is not None:
                claimed.close()
            raise PortInUse("\n".join(busy))
        self.close()
        self._claim = claimed


def _check_attached(settings: Settings) -> None:
    """What a controller that starts would find out about attached servers."""
    from dev_opsgpt.controller.probe import by_url

    try:
        by_url(roles.controller_options(settings).attached)
    except ValueError as error:
        key, mend = "FSCHAT_MODEL_WORKERS", "Attach each server with one key, each model once"
        source = str(settings.origin.config_dir or "configuration")
        raise ConfigError([Problem("error", source, key, str(error), mend)]) from None


async def _tell_controller(units: Units, plan: LaunchPlan) -> list[Line]:
    specs: list[ProcessSpec] = [spec for spec in plan.processes if spec.role == "controller"]
    running = units.staying("controller")
    found = await asyncio.gather(
        *(unit.apply(spec, PATIENCE) for unit, spec in zip(running, specs, strict=True))
    )
    return [Line(f"controller: {why}", ok=False) for why in found if why]


async def _announce(reports: Reports) -> list[Line]:
    """Tells the controller what can be started here now; it hears it again when it connects."""
    try:
        await reports.announce()
    except CallFailed as error:
        return [Line(f"the controller was not told what can be started: {error}", ok=False)]
    return []


def _keys(found: Changes, roles: Collection[Role], *, owed: bool) -> list[Line]:
    """What is told of keys that belong to no model, but to what runs here; ``owed``: the gateways
    could not be replaced."""
    absent = tuple(section for section, role in _SECTIONS.items() if role not in roles)
    told = {
        "in force": (*found.in_place, *(() if owed else found.count)),
        "in force, in new gateways": () if owed else found.new_gateways,
        "takes effect at the next start": found.restart,
    }
    lines = [
        Line(f"{key}: {word}")
        for word, keys in told.items()
        for key in keys
        if not key.startswith(absent)
    ]
    servers = found.attached if "controller" in roles else ()
    lines += [Line(f"{model}: its attached server has changed") for model in servers]
    return lines + [Line(f"{model}: when it is loaded is in force") for model in found.offered]


async def _finish(lines: list[Line], replacing: Replacing, found: Changes) -> list[Line]:
    return [*lines, *await replacing.carry_out(found)]
