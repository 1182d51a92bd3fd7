import random

import pytest

from dev_opsgpt.engines.hf.blocks import BLOCK, BlockPool, Table, blocks_for


def tokens(count: int, first: int = 0) -> list[int]:
    return list(range(first, first + count))


def test_blocks_for_rounds_up() -> None:
    assert [blocks_for(n) for n in (0, 1, BLOCK, BLOCK + 1)] == [0, 1, 1, 2]


def test_what_was_computed_is_found_again() -> None:
    pool = BlockPool(8)
    said = tokens(3 * BLOCK + 2)
    table, held = pool.open(said, len(said))
    assert (held, len(table.blocks)) == (0, 4)
    pool.learn(table, said, len(said))
    kept = list(table.blocks[:3])
    pool.close(table)
    assert pool.available == 8
    assert pool.match(said) == kept
    again, held = pool.open([*said[: 2 * BLOCK], *tokens(5, 900)], 2 * BLOCK + 5)
    assert held == 2 * BLOCK
    assert again.blocks[:2] == kept[:2]
    assert again.blocks[2] not in kept[:2]


def test_a_token_is_left_to_compute() -> None:
    pool = BlockPool(8)
    said = tokens(2 * BLOCK)
    table, _ = pool.open(said, len(said))
    pool.learn(table, said, len(said))
    assert pool.match(said) == table.blocks[:1]


def test_the_same_block_after_another_beginning_is_another() -> None:
    pool = BlockPool(8)
    said = [*tokens(BLOCK), *tokens(BLOCK, 500), 1]
    table, _ = pool.open(said, len(said))
    pool.learn(table, said, len(said))
    assert pool.match([*tokens(BLOCK, 100), *tokens(BLOCK, 500), 1]) == []
    assert pool.match([*tokens(BLOCK, 500), 1]) == []


def test_two_share_while_both_run() -> None:
    pool = BlockPool(8)
    said = tokens(2 * BLOCK + 1)
    one, _ = pool.open(said, len(said))
    pool.learn(one, said, len(said))
    two, held = pool.open(said, len(said))
    assert held == 2 * BLOCK
    assert two.blocks[:2] == one.blocks[:2]
    assert pool.available == 4
    pool.close(one)
    assert pool.available == 5
    pool.close(two)
    assert pool.available == 8


def test_two_that_computed_the_same_count_as_one_content() -> None:
    pool = BlockPool(8)
    said = tokens(2 * BLOCK + 1)
    one, two = pool.open(said, len(said))[0], pool.open(said, len(said))[0]
    pool.learn(one, said, len(said))
    pool.learn(two, said, len(said))
    assert one.contents == two.contents
    pool.close(two)
    pool.close(one)
    assert pool.available == 8
    assert pool.match(said)


def test_the_least_recently_used_goes_first_and_ends_before_beginnings() -> None:
    pool = BlockPool(4)
    old, new = tokens(2 * BLOCK + 1), tokens(BLOCK + 1, 500)
    for said in (old, new):
        table, _ = pool.open(said, len(said) - 1)
        pool.learn(table, said, len(said) - 1)
        pool.close(table)
    taken = Table()
    assert pool.extend(taken, 2 * BLOCK)  # the free one, and the end of the old one
    assert len(pool.match(old)) == 1
    assert len(pool.match(new)) == 1


def test_what_is_discarded_is_known_no_more_but_to_who_holds_it() -> None:
    pool = BlockPool(8)
    said = tokens(2 * BLOCK + 1)
    one, _ = pool.open(said, len(said))
    pool.learn(one, said, len(said))
    other, _ = pool.open([*said[:BLOCK], 900], BLOCK + 1)
    own = one.blocks[1:]
    assert pool.discard(one) == own
    assert pool.match(said) == other.blocks[:1]
    assert pool.available == 6
    pool.close(other)
    assert pool.available == 8


def test_no_room_changes_nothing() -> None:
    pool = BlockPool(2)
    table = Table()
    assert not pool.extend(table, 3 * BLOCK)
    assert table.blocks == []
    assert pool.available == 2
    with pytest.raises(ValueError, match="no room"):
        pool.open([1], 3 * BLOCK)


def test_without_reuse_nothing_is_known() -> None:
    pool = BlockPool(4, reuse=False)
    said = tokens(2 * BLOCK + 1)
    table, _ = pool.open(said, len(said))
    pool.learn(table, said, len(said))
    assert pool.match(said) == []


@pytest.mark.parametrize("seed", range(20))
def test_random_use_loses_no_block_and_shares_none_of_different_content(seed: int) -> None:
    source = random.Random(seed)
    pool = BlockPool(24)
    held: list[tuple[Table, list[int]]] = []
    written: dict[int, list[int]] = {}
    for _ in range(300):
        if held and source.random() < 0.45:
            table, _ = held.pop(source.randrange(len(held)))
            pool.close(table)
        else:
            said = [source.randrange(2) for _ in range(source.randrange(1, 5 * BLOCK))]
            if source.random() < 0.7:
                said = [0] * BLOCK * source.randrange(4) + said[: source.randrange(1, 20)]
            if not pool.room_for(said, len(said)):
                continue
            table, known = pool.open(said, len(said))
            for place, block in enumerate(table.blocks):
                part = said[place * BLOCK : (place + 1) * BLOCK]
                if (place + 1) * BLOCK <= known:
                    assert written[block] == said[: (place + 1) * BLOCK]
                elif len(part) == BLOCK:
                    written[block] = said[: (place + 1) * BLOCK]
                else:
                    written.pop(block, None)
            pool.learn(table, said, len(said))
            held.append((table, said))
        assert pool.available == 24 - len({b for table, _ in held for b in table.blocks})
    for table, _ in held:
        pool.close(table)
    assert pool.available == 24
