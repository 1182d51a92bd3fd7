"""What is loaded, for whom, and what goes for it: one rule at a time."""

from typing import Any

from msgspec import structs

from dev_opsgpt.routing.cards import Bounds, Card, Part
from dev_opsgpt.routing.failures import FIRST_PAUSE
from dev_opsgpt.routing.line import REPEATED, TURN_LASTS
from dev_opsgpt.routing.residency import Order, Residency
from dev_opsgpt.routing.residents import FRESH

HERE = "here"


def card(name: str, **fields: Any) -> Card:
    return Card(**{"name": name, "names": (name,), "on_demand": True, "size": 10} | fields)


class Scene:
    """One or more launchers, whose models are loaded the moment that is decided."""

    def __init__(self, *cards: Card, bounds: Bounds = Bounds(), launcher: str = HERE) -> None:  # noqa: B008
        self.residency = Residency()
        self.parts: dict[str, dict[str, Part]] = {}
        self.now = 100.0
        self.add(launcher, cards, bounds)

    def add(self, launcher: str, cards: tuple[Card, ...], bounds: Bounds) -> None:
        self.parts[launcher] = {}
        self.residency.residents.announce(launcher, cards, bounds)
        self.report(launcher)

    def report(self, launcher: str = HERE, *released: str) -> None:
        parts = self.parts[launcher].values()
        self.residency.residents.report(launcher, parts, released, self.now)

    def want(self, model: str, **how: Any) -> list[Order]:
        self.residency.want(model, self.now, **how)
        return self.residency.decide(self.now)

    def load(self, model: str, **how: Any) -> None:
        (order,) = self.want(model, **how)
        assert order.kind == "load"
        self.loaded(order)

    def loaded(self, order: Order) -> None:
        self.serve(order.model, order.launcher, demanded=order.demanded)
        self.residency.loaded(order, self.now)

    def serve(self, model: str, launcher: str = HERE, *, demanded: bool = False) -> None:
        address = f"http://{launcher}/{model}"
        part = Part(model=model, address=address, state="ready", demanded=demanded)
        self.parts[launcher][model] = part
        self.report(launcher)
        self.residency.residents.heard(address, False, 0, 0, self.now)

    def beat(self, model: str, busy: bool = False, served: int = 1, memory: int = 0) -> None:
        address = f"http://{HERE}/{model}"
        self.residency.residents.heard(address, busy, served, memory, self.now)

    def unloaded(self, order: Order) -> None:
        part = self.parts[order.launcher].pop(order.model)
        self.report(order.launcher)
        self.residency.residents.lost(part.address)
        self.residency.unloaded(order)

    def phase(self, model: str) -> str:
        standing = self.residency.standing(model, self.now)
        assert standing is not None
        return standing.phase


def kinds(orders: list[Order]) -> list[tuple[str, str]]:
    return [(order.kind, order.model) for order in orders]


def test_many_wishes_are_one_load() -> None:
    scene = Scene(card("a"))
    assert scene.phase("a") == "unloaded"
    orders = scene.want("a")
    assert orders == [Order("load", HERE, "a", "wanted")]
    assert scene.want("a") == scene.want("a") == []
    assert scene.phase("a") == "loading"
    scene.loaded(orders[0])
    assert scene.phase("a") == "loaded"
    assert scene.want("a") == []
    assert scene.residency.wishes == 0


def test_what_no_request_may_load() -> None:
    scene = Scene(card("a", on_demand=False), card("b"))
    for model in ("a", "nobody"):
        assert scene.want(model) == []
    standing = scene.residency.standing("a", scene.now)
    assert standing is not None
    assert not standing.loadable
    scene.report(HERE, "b")
    assert scene.want("b") == [], "somebody has stopped it"
    scene.report()
    scene.residency.held.add("b")
    assert scene.want("b") == [], "somebody is stopping it"
    assert kinds(scene.want("a", by_hand=True)) == [("load", "a")]


def test_the_least_recently_used_goes_and_never_a_busy_one() -> None:
    scene = Scene(*map(card, "abc"), bounds=Bounds(replicas=2))
    scene.load("a")
    scene.load("b")
    assert scene.want("c") == [], "what was loaded for a request waits for that"
    assert scene.phase("c") == "waiting"
    scene.beat("a", busy=True)
    scene.now += 1
    scene.beat("b", served=3)
    scene.now += 1
    scene.beat("b", served=3)
    assert kinds(scene.want("c")) == [("unload", "b")], "a is at work"
    assert scene.want("c") == []
    scene.beat("a")
    (order,) = [Order("unload", HERE, "b", "to make room for 'c'")]
    scene.unloaded(order)
    assert kinds(scene.residency.decide(scene.now)) == [("load", "c")]


def waiting_scene() -> Scene:
    """a and b are at work, of which both have to go for big; there is room for one small more."""
    scene = Scene(
        *(card(name, keep_alive=None) for name in "abcde"),
        card("big", replicas=3),
        card("gpu", size=0),
        bounds=Bounds(memory=35),
    )
    for name in "ab":
        scene.load(name)
        scene.beat(name, busy=True)
    assert scene.want("big") == []
    return scene


def test_what_waits_for_room_is_not_overtaken() -> None:
    scene = waiting_scene()
    assert scene.want("c") == [], "there would be room for it"
    standing = scene.residency.standing("c", scene.now)
    assert standing is not None
    assert standing.message == "there is no room for it, and 'big' waits for longer"
    assert kinds(scene.want("gpu")) == [("load", "gpu")], "it takes none"
    scene.serve("gpu", demanded=True)
    scene.now += 3
    scene.want("big")
    scene.beat("a")
    scene.now += 1
    scene.beat("a")
    assert scene.want("c") == [], "nor does a leave for it"
    scene.beat("b")
    orders = scene.residency.decide(scene.now)
    assert sorted(kinds(orders)) == [("unload", "a"), ("unload", "b")]
    for order in orders:
        scene.unloaded(order)
    assert kinds(scene.want("c")) == [("load", "big")]


def test_who_waits_in_vain_lets_the_others_go_first() -> None:
    scene = waiting_scene()
    began = scene.now
    while scene.now - began <= TURN_LASTS:
        assert scene.want("c") == []
        scene.now += 5
        for name in "ab":
            scene.beat(name, busy=True)
        scene.residency.want("big", scene.now)
    assert kinds(scene.want("c")) == [("load", "c")]
    scene.serve("c", demanded=True)
    scene.beat("c", busy=True)
    assert scene.want("big") == scene.want("d") == []
    assert scene.phase("big") == "waiting"


def test_what_nobody_waits_for_any_more_holds_nobody_up() -> None:
    scene = waiting_scene()
    scene.now += REPEATED + 1
    for name in "ab":
        scene.beat(name, busy=True)
    assert kinds(scene.want("c")) == [("load", "c")]


def test_a_load_by_hand_that_waits_holds_others_up_for_a_turn_only() -> None:
    scene = waiting_scene()
    scene.want("big", by_hand=True)
    scene.now += REPEATED + 1
    assert scene.want("c") == [], "nobody repeats it"
    scene.now += TURN_LASTS
    assert kinds(scene.want("c")) == [("load", "c")]
    assert scene.phase("big") == "waiting"


def test_one_that_turns_out_busy_stays() -> None:
    scene = Scene(*map(card, "ab"), bounds=Bounds(replicas=1))
    scene.load("a")
    scene.beat("a")
    scene.now += 2
    scene.beat("a")
    (order,) = scene.want("b")
    assert scene.phase("a") == "unloading"
    scene.residency.kept(order, scene.now)
    assert scene.phase("a") == "loaded"
    assert scene.want("b") == [], "it is let alone for a moment"
    scene.now += 2
    assert kinds(scene.want("b")) == [("unload", "a")]


def test_memory_is_what_files_have_then_what_was_seen() -> None:
    scene = Scene(
        card("a"), card("b"), card("c", size=40), card("d", size=60), bounds=Bounds(memory=50)
    )
    scene.load("a")
    scene.load("b")
    scene.beat("a")
    scene.beat("b")
    scene.now += 2
    scene.beat("a", served=2)
    scene.now += 2
    scene.beat("a", served=2)
    # 20 of 50 are taken, 40 are needed: one has to go.
    orders = scene.want("c")
    assert kinds(orders) == [("unload", "b")]
    scene.unloaded(orders[0])
    scene.residency.decide(scene.now)
    assert scene.want("d") == []
    standing = scene.residency.standing("d", scene.now)
    assert standing is not None
    assert standing.phase == "failed", "it never fits"
    assert "max_loaded_memory" in standing.message


def test_memory_of_gpus_has_a_bound_of_its_own() -> None:
    scene = Scene(
        card("a", gpu=40),
        card("b", gpu=40),
        card("c", gpu=40),
        card("cpu"),
        card("huge", gpu=30, replicas=4),
        bounds=Bounds(memory=40, gpu=100),
    )
    scene.load("a")
    scene.load("b")
    scene.load("cpu")
    for name in ("a", "b", "cpu"):
        # What the process has is no matter for the GPU.
        scene.beat(name, memory=12)
    scene.now += 2
    for name, served in (("a", 1), ("b", 2), ("cpu", 1)):
        scene.beat(name, served=served)
    (order,) = scene.want("c")
    assert kinds([order]) == [("unload", "a")], "cpu is as idle, and takes nothing there"
    scene.unloaded(order)
    assert kinds(scene.residency.decide(scene.now)) == [("load", "c")]
    assert scene.want("huge") == []
    standing = scene.residency.standing("huge", scene.now)
    assert standing is not None
    assert "max_loaded_gpu_memory" in standing.message


def test_what_takes_more_than_its_files_makes_others_go() -> None:
    scene = Scene(*map(card, "ab"), bounds=Bounds(memory=50))
    scene.load("a")
    scene.load("b")
    scene.now += 2
    scene.beat("a", memory=30)
    scene.beat("b", memory=30, busy=True)
    orders = scene.residency.decide(scene.now)
    assert kinds(orders) == [("unload", "a")]
    scene.unloaded(orders[0])
    assert scene.want("a") == [], "it is known by now what it takes"


def test_what_always_stays_is_not_unloaded() -> None:
    scene = Scene(card("a", stays=True, keep_alive=5.0), card("b"), bounds=Bounds(replicas=1))
    scene.serve("a")
    scene.beat("a")
    scene.now += 100
    scene.beat("a")
    assert scene.want("b") == []
    standing = scene.residency.standing("b", scene.now)
    assert standing is not None
    assert standing.phase == "failed"
    assert "always stay" in standing.message
    assert standing.retry_after


def test_keep_alive() -> None:
    scene = Scene(card("a", keep_alive=60.0), card("b", keep_alive=None))
    scene.load("a")
    scene.load("b")
    for _ in range(29):
        scene.now += 2
        scene.beat("a")
        scene.beat("b")
    assert scene.residency.decide(scene.now) == []
    scene.beat("a", served=2)
    scene.now += 58
    scene.beat("a", served=2)
    assert scene.residency.decide(scene.now) == [], "it was asked in between"
    scene.now += 4
    scene.beat("a", served=2)
    assert scene.residency.decide(scene.now) == [Order("unload", HERE, "a", "idle for 60 s")]


def test_keep_alive_of_nothing_at_all_answers_first() -> None:
    scene = Scene(card("a", keep_alive=0.0))
    scene.load("a")
    assert scene.residency.decide(scene.now) == [], "the request has not come yet"
    scene.now += 1
    scene.beat("a", busy=True)
    assert scene.residency.decide(scene.now) == []
    scene.now += 1
    scene.beat("a")
    assert kinds(scene.residency.decide(scene.now)) == [("unload", "a")]


def test_one_that_nobody_uses_after_all_goes_too() -> None:
    scene = Scene(*map(card, "ab"), bounds=Bounds(replicas=1))
    scene.load("a")
    scene.now += FRESH
    assert kinds(scene.want("b")) == [("unload", "a")]


def test_why_a_model_does_not_run_is_told_until_it_is_tried_again() -> None:
    scene = Scene(card("a"), card("b"))
    residents = scene.residency.residents
    # Its launcher could not start it, which is no reason for a request not to try.
    residents.report(HERE, (), (), scene.now, {"a": "no such file"})
    standing = scene.residency.standing("a", scene.now)
    assert standing is not None
    assert (standing.phase, standing.message) == ("failed", "no such file")
    assert (standing.loadable, standing.retry_after) == (True, None)
    assert scene.phase("b") == "unloaded"
    (order,) = scene.want("a")
    assert scene.phase("a") == "loading"
    scene.residency.failed(order, "it is truncated", scene.now)
    # The newest reason, beyond the pause too.
    scene.now += 10 * FIRST_PAUSE
    residents.report(HERE, (), (), scene.now, {"a": "no such file"})
    standing = scene.residency.standing("a", scene.now)
    assert standing is not None
    assert (standing.phase, standing.message) == ("failed", "it is truncated")
    assert standing.retry_after is None
    scene.load("a")
    assert scene.phase("a") == "loaded"


def test_a_failed_load_is_tried_again_after_growing_pauses() -> None:
    scene = Scene(card("a"))
    pauses = []
    for _ in range(3):
        (order,) = scene.want("a")
        scene.residency.failed(order, "no such file", scene.now)
        standing = scene.residency.standing("a", scene.now)
        assert standing is not None
        assert (standing.phase, standing.message) == ("failed", "no such file")
        assert scene.want("a") == []
        assert standing.retry_after is not None
        pauses.append(standing.retry_after)
        scene.now += standing.retry_after + 0.1
    assert pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    (order,) = scene.want("a")
    scene.residency.failed(order, "no such file", scene.now)
    assert kinds(scene.want("a", by_hand=True)) == [("load", "a")], "people may try at once"


def test_a_launcher_that_leaves_is_no_fault_of_the_model() -> None:
    scene = Scene(card("a"))
    (order,) = scene.want("a")
    scene.residency.residents.gone(HERE)
    scene.residency.failed(order, "it left", scene.now, its_fault=False)
    assert scene.residency.decide(scene.now) == []
    scene.add(HERE, (card("a"),), Bounds())
    assert kinds(scene.residency.decide(scene.now)) == [("load", "a")]


def test_two_launchers_the_one_with_room_or_with_less() -> None:
    scene = Scene(card("a"), card("b"), bounds=Bounds(replicas=1))
    scene.add("there", (card("a"), card("c")), Bounds(replicas=2))
    scene.load("a")
    assert "a" in scene.parts[HERE]
    (order,) = scene.want("c")
    assert order.launcher == "there"
    scene.loaded(order)
    assert scene.want("b") == [], "only the first may, and what it has is new"


def test_a_process_that_is_started_again_is_left_to_its_launcher() -> None:
    scene = Scene(card("a"))
    scene.load("a")
    dead = Part(model="a", address=f"http://{HERE}/a", state="restarting", demanded=True)
    scene.parts[HERE]["a"] = dead
    scene.report()
    scene.residency.residents.lost(dead.address)
    assert scene.phase("a") == "restarting"
    assert scene.want("a") == []
    known = {"died": "was killed by signal 9", "deaths": 2}
    scene.parts[HERE]["a"] = structs.replace(dead, **known)
    scene.report()
    standing = scene.residency.standing("a", scene.now)
    assert standing is not None
    assert standing.message == "its process was killed by signal 9, and is started again"
    assert standing.deaths == 2


def test_by_hand_stays_unless_its_entry_says_otherwise() -> None:
    scene = Scene(card("a", stays=True, keep_alive=10.0))
    scene.load("a", by_hand=True)
    scene.beat("a")
    scene.now += 100
    scene.beat("a")
    assert scene.residency.decide(scene.now) == []
    scene.residency.residents.announce(HERE, [card("a", stays=False, keep_alive=10.0)], Bounds())
    assert kinds(scene.residency.decide(scene.now)) == [("unload", "a")]


def test_progress_is_told() -> None:
    scene = Scene(card("a", names=("a", "alias")))
    scene.want("a")
    part = Part(
        model="a", address="x", state="starting", doing="weights", fraction=0.4, seconds=2.0
    )
    scene.parts[HERE]["a"] = part
    scene.report()
    standing = scene.residency.standing("a", scene.now)
    assert standing is not None
    assert (standing.phase, standing.doing, standing.fraction) == ("loading", "weights", 0.4)
    assert scene.residency.residents.resolve("alias") == "a"
    assert [one.name for one in scene.residency.standings(scene.now)] == ["a"]


def test_one_that_dies_all_the_time_makes_room() -> None:
    scene = Scene(*map(card, "ab"), bounds=Bounds(replicas=1))
    scene.load("a")
    scene.beat("a")
    dead = Part(model="a", address=f"http://{HERE}/a", state="restarting", demanded=True)
    scene.parts[HERE]["a"] = dead
    scene.report()
    scene.residency.residents.lost(dead.address)
    assert kinds(scene.want("b")) == [("unload", "a")]


def test_somebody_wants_to_keep_what_a_request_is_loading() -> None:
    scene = Scene(card("a", keep_alive=10.0))
    (order,) = scene.want("a")
    assert order.demanded
    assert scene.want("a", by_hand=True) == []
    scene.loaded(order)
    scene.beat("a", busy=True)
    scene.beat("a")
    scene.now += 100
    assert scene.residency.decide(scene.now) == []


def test_what_is_wanted_just_when_it_would_go_stays() -> None:
    for by_hand in (False, True):
        scene = Scene(card("a", keep_alive=10.0))
        scene.load("a")
        scene.beat("a")
        scene.now += 11
        scene.beat("a")
        assert scene.want("a", by_hand=by_hand) == []
        scene.now += 9
        assert scene.residency.decide(scene.now) == []
        scene.now += 2
        assert len(scene.residency.decide(scene.now)) == (0 if by_hand else 1)


def test_a_refusal_is_no_failure_to_count_from() -> None:
    scene = Scene(card("a", size=20), bounds=Bounds(memory=10))
    assert scene.want("a") == []
    scene.residency.residents.announce(HERE, [card("a", size=5)], Bounds(memory=10))
    scene.now += FIRST_PAUSE + 0.1
    (order,) = scene.want("a")
    scene.residency.failed(order, "no such file", scene.now)
    standing = scene.residency.standing("a", scene.now)
    assert standing is not None
    assert standing.retry_after == FIRST_PAUSE
    assert scene.want("a") == []


def test_an_order_is_called_off_by_what_people_do_before_its_turn() -> None:
    scene = Scene(card("a", keep_alive=10.0))
    (load,) = scene.want("a")
    assert scene.residency.stands(load)
    scene.residency.unload("a", HERE)
    assert not scene.residency.stands(load)
    scene.residency.unloaded(Order("unload", HERE, "a", "by hand"))
    assert scene.phase("a") == "unloaded"
    scene.load("a")
    scene.beat("a")
    scene.now += 11
    (unload,) = scene.residency.decide(scene.now)
    assert unload.kind == "unload"
    assert scene.residency.stands(unload)
    scene.residency.residents.reserve(HERE, "a", 1, scene.now)
    assert not scene.residency.stands(unload), "more of it are being started"


def test_what_its_launcher_is_stopping_is_waited_for() -> None:
    scene = Scene(card("a"))
    scene.load("a")
    part = Part(model="a", address=f"http://{HERE}/a", state="leaving")
    scene.parts[HERE]["a"] = part
    scene.report()
    assert scene.want("a") == []
    standing = scene.residency.standing("a", scene.now)
    assert standing is not None
    assert (standing.phase, standing.message) == ("waiting", "it is being unloaded")
    del scene.parts[HERE]["a"]
    scene.report()
    assert kinds(scene.residency.decide(scene.now)) == [("load", "a")]
