"""Against transformers' own processors where there are some, and by counting."""

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.sampling import adjusted, choose
from dev_opsgpt.engines.hf.sequence import Sampling

WIDTH = 70
LOGITS = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(3)) * 2


def running(prompt: list[int] | None = None, **given: object) -> Running:
    return Running(prompt or [1, 2], Sampling(max_tokens=9, **given))  # type: ignore[arg-type]


def mask_of(*allowed: int) -> NDArray[np.int32]:
    words = np.zeros(-(-WIDTH // 32), np.uint32)
    for token in allowed:
        words[token // 32] |= np.uint32(1 << token % 32)
    return words.view(np.int32)


def test_greedy_takes_the_likeliest_and_says_how_likely() -> None:
    asked = [running(temperature=0.0, logprobs=k) for k in (0, 3)]
    one, two = choose(LOGITS[:2], asked, [None, None])
    logprobs = torch.log_softmax(LOGITS, -1)
    assert one.token == int(LOGITS[0].argmax())
    assert one.logprob == pytest.approx(float(logprobs[0].max()), abs=1e-6)
    assert one.top == []
    values, ids = logprobs[1].topk(3)
    assert [token for token, _ in two.top] == ids.tolist()
    assert [value for _, value in two.top] == pytest.approx(values.tolist(), abs=1e-6)


def test_logprobs_are_the_models_own_whatever_changes_the_choice() -> None:
    asked = running(temperature=0.0, logprobs=1, logit_bias={5: 100.0}, repetition_penalty=3.0)
    (found,) = choose(LOGITS[:1], [asked], [None])
    assert found.token == 5
    expected = torch.log_softmax(LOGITS[0], -1)
    assert found.logprob == pytest.approx(float(expected[5]), abs=1e-6)
    assert found.top[0][0] == int(LOGITS[0].argmax())


def test_penalties_are_those_of_openai_and_transformers() -> None:
    one = running([3, 4, 4], presence_penalty=0.5, frequency_penalty=0.25)
    two = running([3, 4, 4], repetition_penalty=1.7)
    for token in (9, 9, 10):
        one.append(token)
        two.append(token)
    found = adjusted(LOGITS[:3], [one, two, running()], [None] * 3)
    expected = LOGITS[0].clone()
    expected[9] -= 0.5 + 2 * 0.25
    expected[10] -= 0.5 + 0.25
    torch.testing.assert_close(found[0], expected)
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([two.tokens]), LOGITS[1:2].clone())
    torch.testing.assert_close(found[1], theirs[0])
    torch.testing.assert_close(found[2], LOGITS[2])


def test_penalties_follow_tokens_that_come_later() -> None:
    one = running([3], repetition_penalty=2.0)
    adjusted(LOGITS[:1], [one], [None])
    one.append(8)
    found = adjusted(LOGITS[:1], [one], [None])
    theirs = RepetitionPenaltyLogitsProcessor(2.0)(torch.tensor([[3, 8]]), LOGITS[:1].clone())
    torch.testing.assert_close(found, theirs)


def test_a_mask_leaves_what_it_allows_even_the_highest_bit() -> None:
    masks = [mask_of(31, 63), None, mask_of(64)]
    asked = [running(temperature=0.0), running(temperature=0.0), running(temperature=0.0)]
    found = adjusted(LOGITS[:3], asked, masks)
    assert torch.isfinite(found[0]).nonzero().flatten().tolist() == [31, 63]
    assert torch.isfinite(found[1]).all()
    assert torch.isfinite(found[2]).nonzero().flatten().tolist() == [64]
    # A mask of a tokenizer that knows fewer tokens than the model has rows for.
    short = adjusted(LOGITS[:1], asked[:1], [mask_of(1, 40)[:2]])
    assert torch.isfinite(short[0]).nonzero().flatten().tolist() == [1, 40]


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0.7},
        {"temperature": 1.5, "top_k": 5},
        {"top_p": 0.6},
        {"temperature": 0.8, "top_k": 12, "top_p": 0.7},
        {"min_p": 0.2},
        {"top_k": 20, "top_p": 0.9, "min_p": 0.1},
    ],
)
def test_tokens_come_as_often_as_transformers_would_have_them(given: dict[str, float]) -> None:
    draws = 20_000
    asked = [running(seed=number, **given) for number in range(draws)]
    found = choose(LOGITS[:1].expand(draws, -1), asked, [None] * draws)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(given.get("temperature", 1.0)))])
    if "top_k" in given:
        warpers.append(TopKLogitsWarper(int(given["top_k"])))
    if "top_p" in given:
        warpers.append(TopPLogitsWarper(given["top_p"]))
    if "min_p" in given:
        warpers.append(MinPLogitsWarper(given["min_p"]))
    expected = torch.softmax(warpers(torch.zeros(1, 1, dtype=torch.int64), LOGITS[:1]), -1)[0]
    counts = torch.zeros(WIDTH)
    for token, count in Counter(one.token for one in found).items():
        counts[token] = count
    assert not counts[expected == 0].any()
    # Pearson's chi squared over those expected often enough: its mean is their number, its
    # variance twice that.
    often = expected * draws > 5
    errors = (counts - expected * draws)[often] ** 2 / (expected * draws)[often]
    degrees = int(often.sum())
    assert errors.sum() < degrees + 6 * (2 * degrees) ** 0.5


def test_top_p_beyond_the_candidates_sorts_all() -> None:
    flat = torch.zeros(1, 2000)
    flat[0, 7] = 1e-3
    draws = [running(seed=n, top_p=0.9) for n in range(3000)]
    found = choose(flat.expand(3000, -1), draws, [None] * 3000)
    assert len({one.token for one in found}) > 1200


def test_a_seed_gives_the_same_whatever_is_beside_it() -> None:
    given = {"seed": 11, "temperature": 1.2, "top_p": 0.95}
    alone = []
    one = running(**given)
    for _ in range(8):
        alone.append(choose(LOGITS[:1], [one], [None])[0].token)
        assert choose(LOGITS[:1], [one], [None])[0].token == alone[-1]
        one.append(alone[-1])
    beside = []
    one = running(**given)
    others = [running(top_k=3), running(temperature=0.0), running(min_p=0.5)]
    for turn in range(8):
        place = turn % 4
        asked = [*others[:place], one, *others[place:]]
        rows = torch.cat([LOGITS[1 : 1 + place], LOGITS[:1], LOGITS[1 + place :]])
        beside.append(choose(rows, asked, [None] * 4)[place].token)
        one.append(beside[-1])
    assert alone == beside
    assert len(set(alone)) > 1


def test_without_a_seed_answers_differ() -> None:
    flat = torch.zeros(64, WIDTH)
    assert len({one.token for one in choose(flat, [running() for _ in range(64)], [None] * 64)}) > 9


def test_a_temperature_next_to_nothing_is_greedy() -> None:
    (found,) = choose(LOGITS[:1], [running(temperature=1e-9)], [None])
    assert found.token == int(LOGITS[0].argmax())


def test_values_that_are_no_numbers_are_said() -> None:
    rows = LOGITS[:2].clone()
    rows[1, 3] = float("nan")
    found = choose(rows, [running(), running(top_p=0.5)], [None, None])
    assert [one.valid for one in found] == [True, False]
    rows[0, 5] = float("inf")
    assert not choose(rows, [running(), running()], [None, None])[0].valid


def test_a_choice_of_nothing_is_said() -> None:
    rows = LOGITS[:2].clone()
    rows[:, 31] = float("-inf")
    found = choose(rows, [running(), running(temperature=0.0)], [mask_of(31)] * 2)
    assert [one.valid for one in found] == [False, False]


def test_a_bias_is_part_of_what_the_repetition_penalty_sees() -> None:
    bias = {1: 3.0, 9: -2.0}
    one = running([1, 9], repetition_penalty=1.7, logit_bias=bias)
    found = adjusted(LOGITS[:1], [one], [None])
    biased = SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()])
    ids = torch.tensor([[1, 9]])
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(ids, biased(ids, LOGITS[:1].clone()))
    torch.testing.assert_close(found, theirs)


def test_an_impossible_token_has_a_log_probability_that_json_can_say() -> None:
    rows = torch.full((1, WIDTH), float("-inf"))
    rows[0, 3] = 0.0
    (found,) = choose(rows, [running(logprobs=2)], [None])
    assert found.token == 3
    assert [value for _, value in found.top] == [0.0, -9999.0]


def test_a_bias_against_every_token_is_one_against_none() -> None:
    banned = running(temperature=0.0, logit_bias=dict.fromkeys(range(WIDTH), -100.0))
    (found,) = choose(LOGITS[:1], [banned], [None])
    assert found.token == int(LOGITS[0].argmax())


@pytest.mark.parametrize(
    "given",
    [
        {"top_p": 0.0},
        {"top_k": 1},
        {"min_p": 1.0},
        {"temperature": 1e-4},
        {"temperature": 2.0, "top_p": 1e-12, "top_k": 10**9, "min_p": 0.0},
    ],
)
def test_extremes_take_the_likeliest(given: dict[str, float]) -> None:
    asked = [running(**given), running(temperature=2.0)]
    found = choose(LOGITS[:2], asked, [None, None])
    assert found[0].token == int(LOGITS[0].argmax())
    assert found[0].valid
