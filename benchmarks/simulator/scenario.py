"""What is simulated: a fleet, its engines, and the conversations that are held with it."""

import msgspec


class Engine(msgspec.Struct, frozen=True):
    """A replica at speed 1. A prompt's tokens that are not cached are read one prompt at a time,
    ``prefill`` a second; a step that gives each running sequence its next token takes ``step``
    seconds and ``step_each`` for each of them. ``slots`` sequences run at once, others queue.
    ``cache`` is the tokens of earlier sequences that are kept, ``block`` how many at a time."""

    prefill: float = 8_000.0
    step: float = 0.012
    step_each: float = 0.0006
    slots: int = 16
    cache: int = 60_000
    block: int = 16


class Chats(msgspec.Struct, frozen=True):
    """The load: ``rate`` requests a second. Conversations begin at random times with one of
    ``systems`` system prompts of about ``system`` tokens, the n-th most popular with a frequency
    of n ** -``zipf``, and have about ``turns`` turns, each with a question of about ``question``
    tokens, an answer of about ``answer``, and about ``think`` seconds until the next question.
    With ``burst`` b every ``period`` begins with a fifth of its time at b times the mean rate.
    """

    rate: float
    systems: int = 1
    system: int = 0
    zipf: float = 1.0
    turns: float = 1.0
    question: int = 60
    answer: int = 80
    think: float = 4.0
    burst: float = 1.0
    period: float = 5.0


class Scenario(msgspec.Struct, frozen=True):
    """One fleet under one load.

    ``speeds`` are replicas' real speeds, repeated over the fleet; ``told`` whether the policies
    know them as weights. Through ``gateways`` of them the conversations come, each turn through
    any, or all turns through the same one where ``sticky``; each gateway knows its own requests at
    once and the others' by the replicas' beats. ``seconds`` are simulated, those after ``warm_up``
    are counted.
    """

    name: str
    title: str
    chats: Chats
    replicas: int = 8
    seconds: float = 240.0
    warm_up: float = 60.0
    engine: Engine = Engine()
    speeds: tuple[float, ...] = (1.0,)
    told: bool = False
    gateways: int = 1
    sticky: bool = False
    beat: float = 2.0
