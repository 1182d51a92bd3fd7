import asyncio

from dev_opsgpt.controller.locks import NamedLocks


async def test_one_at_a_time_for_each_name() -> None:
    locks = NamedLocks()
    inside: list[str] = []
    most = 0

    async def work(*names: str) -> None:
        nonlocal most
        async with locks.hold(names):
            inside.extend(names)
            most = max(most, len(inside))
            assert len(set(inside)) == len(inside), "two held the same name"
            await asyncio.sleep(0.001)
            for name in names:
                inside.remove(name)

    pairs = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "a"), ("d",), ("a",)] * 5
    async with asyncio.timeout(30):
        await asyncio.gather(*(work(*pair) for pair in pairs))
    assert most > 2, "different names do not wait for each other"
    assert not locks._locks
    assert not locks._users


async def test_cancelled_waiters_leave_nothing() -> None:
    locks = NamedLocks()
    async with locks.hold({"a"}):
        waiter = asyncio.create_task(locks.hold({"a"}).__aenter__())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
    assert not locks._locks
