"""The scenarios of a run, and their short forms."""

import msgspec

from benchmarks.simulator.scenario import Chats, Engine, Scenario

_CHATS = Chats(
    rate=30, systems=24, system=1200, zipf=1.0, turns=5, question=80, answer=100, think=6
)
# A large fleet is simulated for seconds, so its conversations are hurried.
_CROWD = Chats(
    rate=100_000, systems=400, system=500, zipf=1.0, turns=4, question=40, answer=16, think=0.4
)
_CROWD_ENGINE = Engine(
    prefill=80_000, step=0.004, step_each=0.00008, slots=32, cache=60_000, block=16
)

SCENARIOS = (
    Scenario(
        "uniform",
        "8 equal replicas, single questions that have nothing in common",
        Chats(rate=36, question=300, answer=100),
    ),
    Scenario("chats", "8 equal replicas, chats of 5 turns under 24 system prompts", _CHATS),
    Scenario(
        "busy chats",
        "the same at nearly the rate that they can bear",
        msgspec.structs.replace(_CHATS, rate=42),
    ),
    Scenario(
        "one prompt",
        "8 equal replicas, chats that all begin with the same long system prompt",
        msgspec.structs.replace(_CHATS, systems=1, system=3000),
    ),
    Scenario(
        "bursts",
        "the chats, a fifth of the time at 2.5 times the rate",
        msgspec.structs.replace(_CHATS, rate=22, burst=2.5),
    ),
    Scenario(
        "mixed speeds",
        "the chats on 4 replicas of speed 1 and 4 of speed 2, known as weights",
        msgspec.structs.replace(_CHATS, rate=44),
        speeds=(1.0, 2.0),
        told=True,
    ),
    Scenario(
        "one slow",
        "the chats on 7 replicas and one of a quarter of their speed, which nobody knows",
        msgspec.structs.replace(_CHATS, rate=26),
        speeds=(1.0,) * 7 + (0.25,),
    ),
    Scenario(
        "gateways",
        "the chats on 32 replicas, through 4 gateways, each turn through any of them",
        msgspec.structs.replace(_CHATS, rate=120, systems=96),
        replicas=32,
        gateways=4,
    ),
    Scenario(
        "sticky gateways",
        "the same, all turns of a chat through the same gateway",
        msgspec.structs.replace(_CHATS, rate=120, systems=96),
        replicas=32,
        gateways=4,
        sticky=True,
    ),
    Scenario(
        "crowd",
        "1,000 replicas, 100,000 requests a second, chats of 4 turns under 400 system prompts",
        _CROWD,
        replicas=1000,
        seconds=1.6,
        warm_up=0.6,
        engine=_CROWD_ENGINE,
    ),
)


def short(scenario: Scenario) -> Scenario:
    """The same fleet for a shorter time; the crowd is a tenth of one."""
    if scenario.replicas < 1000:
        return msgspec.structs.replace(scenario, seconds=14, warm_up=6)
    chats = msgspec.structs.replace(scenario.chats, rate=scenario.chats.rate / 10, systems=40)
    return msgspec.structs.replace(
        scenario,
        title="100 replicas, 10,000 requests a second, chats of 4 turns under 40 system prompts",
        chats=chats,
        replicas=100,
        seconds=0.8,
        warm_up=0.3,
    )
