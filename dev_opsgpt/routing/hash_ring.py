"""A ring of hashes: every key has a home on it, and few keys move when homes come and go."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from hashlib import blake2b

# Points of each member on the ring. The more, the more alike their shares: these give members'
# shares a standard deviation of an eighth.
POINTS = 64


class HashRing:
    """Members and the arcs of the ring that belong to them. The same members give the same ring in
    every process, in whatever order they came."""

    __slots__ = ("_owners", "_points")

    def __init__(self) -> None:
        self._points: list[int] = []
        self._owners: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._points)

    def add(self, members: Iterable[str]) -> None:
        """Adds members that are not on the ring."""
        for member in members:
            for point in _points(member):
                # Two members at one point are as good as impossible; the ring must not depend on
                # who came first even then.
                owner = self._owners.get(point)
                if owner is None:
                    self._points.append(point)
                self._owners[point] = member if owner is None else min(owner, member)
        self._points.sort()

    def remove(self, member: str) -> None:
        """Takes a member off; its arcs fall to those that follow."""
        for point in _points(member):
            if self._owners.get(point) == member:
                del self._owners[point]
                del self._points[bisect_right(self._points, point) - 1]

    def walk(self, key: str) -> Iterator[str]:
        """The members from a key's home on, each once."""
        points, owners = self._points, self._owners
        if not points:
            return
        start = bisect_right(points, _hash(key)) % len(points)
        home = owners[points[start]]
        yield home
        seen = {home}
        for place in range(start + 1, start + len(points)):
            owner = owners[points[place % len(points)]]
            if owner not in seen:
                seen.add(owner)
                yield owner


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _points(member: str) -> list[int]:
    """A member's points, eight from each digest."""
    name = member.encode("utf-8", "surrogatepass")
    digests = b"".join(blake2b(name + b"#%d" % n).digest() for n in range(POINTS // 8))
    return [int.from_bytes(digests[at : at + 8]) for at in range(0, len(digests), 8)]
