"""Rejection applies time and validity, each of which decides somewhere, and says why it gives up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from runtime_model.prediction import Prediction
from runtime_model.rejection import BudgetUnreachableError, ProblemSizeThresholds, rejection_sample

Predict = Callable[[Sequence[int]], Prediction]
SECONDS = {0: 1e-2, 1: 1e-5, 2: 1e-5}
VALID = {0: 0.99, 1: 0.2, 2: 0.99}


def _table(configs: Sequence[int]) -> Prediction:
    """0 is too slow, 1 would not run, 2 is fine."""
    seconds, valid = (np.asarray([table[c] for c in configs]) for table in (SECONDS, VALID))
    return Prediction(seconds, valid, np.zeros(len(configs)))


def _draw(*choices: int) -> Callable[[np.random.Generator], int]:
    return lambda rng: int(rng.choice(choices))


@pytest.mark.parametrize("others", [(0,), (1,), (0, 1)], ids=["time decides", "validity decides", "both"])
def test_only_the_configuration_that_is_fast_and_valid_is_accepted(others: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert rejection_sample(_draw(2, *others), _table, rng, budget_seconds=1e-3, batch=4) == 2


def test_time_accepts_what_validity_rejects_and_the_reverse() -> None:
    rng = np.random.default_rng(0)
    for rejected in (1, 0):
        with pytest.raises(BudgetUnreachableError):
            rejection_sample(_draw(rejected), _table, rng, budget_seconds=1e-3, max_tries=8)
    assert rejection_sample(_draw(1), _table, rng, budget_seconds=1e-3, min_valid_probability=0.1) == 1
    assert rejection_sample(_draw(0), _table, rng, budget_seconds=1.0) == 0


def test_giving_up_says_how_near_it_came() -> None:
    with pytest.raises(BudgetUnreachableError) as caught:
        rejection_sample(_draw(0, 1), _table, np.random.default_rng(0), budget_seconds=1e-3, max_tries=100)
    message = str(caught.value)
    assert "got 0.001 s per step" in message
    assert "accepted 0 of 100" in message
    assert "an acceptance rate of 0" in message
    assert "Fastest valid seen, at that probability: 0.01 s; fastest of all: 1e-05 s" in message


def test_the_safety_quantile_asks_for_room() -> None:
    """0.5 s with a standard deviation of log 2: below 1 s with probability Φ(1) = 0.84."""

    def predict(configs: Sequence[int]) -> Prediction:
        n = len(configs)
        return Prediction(np.full(n, 0.5), np.ones(n), np.full(n, np.log(2.0)))

    rng = np.random.default_rng(0)
    for quantile in (0.5, 0.84):
        assert rejection_sample(_draw(2), predict, rng, budget_seconds=1.0, safety_quantile=quantile) == 2
    with pytest.raises(BudgetUnreachableError, match=r"0\.0% stay within it with probability 0\.85"):
        rejection_sample(_draw(2), predict, rng, budget_seconds=1.0, safety_quantile=0.85, max_tries=8)
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        rejection_sample(_draw(2), predict, rng, budget_seconds=1.0, safety_quantile=1.0)


def test_max_tries_is_exact_also_when_it_is_no_multiple_of_the_batch() -> None:
    seen: list[int] = []

    def predict(configs: Sequence[int]) -> Prediction:
        seen.append(len(configs))
        return _table(configs)

    with pytest.raises(BudgetUnreachableError, match="0 of 10 "):
        rejection_sample(
            _draw(0), predict, np.random.default_rng(0), budget_seconds=1e-3, max_tries=10, batch=4
        )
    assert seen == [4, 4, 2]


def test_accepted_configurations_keep_the_samplers_ratios() -> None:
    """Uniform on 0..9 with seconds = value: under a budget of 4.5 each of 0..4 has probability 1/5."""
    rng = np.random.default_rng(3)

    def predict(configs: Sequence[int]) -> Prediction:
        return Prediction(np.asarray(configs, float), np.ones(len(configs)), np.zeros(len(configs)))

    counts = np.zeros(10)
    for _ in range(2000):
        counts[
            rejection_sample(lambda r: int(r.integers(10)), predict, rng, budget_seconds=4.5, batch=3)
        ] += 1
    assert counts[5:].sum() == 0
    np.testing.assert_allclose(counts[:5] / 2000, 0.2, atol=0.04)  # 4.5 standard deviations


def test_the_same_generator_state_gives_the_same_configuration() -> None:
    draws = [
        rejection_sample(_draw(0, 1, 2), _table, np.random.default_rng(5), budget_seconds=1.0)
        for _ in range(2)
    ]
    assert draws[0] == draws[1]


def test_thresholds_draw_budgets_with_their_probabilities() -> None:
    thresholds = ProblemSizeThresholds(seconds=(1e-5, 1e-3), probabilities=(0.25, 0.75))
    rng = np.random.default_rng(0)
    draws = np.asarray([thresholds.sample(rng) for _ in range(4000)])
    assert set(draws) == {1e-5, 1e-3}
    assert (draws == 1e-5).mean() == pytest.approx(0.25, abs=0.03)
    assert rejection_sample(_draw(2), _table, rng, budget_seconds=thresholds) == 2


def test_the_papers_probabilities_are_refused_with_the_way_out() -> None:
    seconds, printed = (2e-5, 1e-4, 4e-4, 1e-3), (0.65, 0.3, 0.1, 0.05)
    with pytest.raises(ValueError, match=r"= 1\.1\. .*normalized"):
        ProblemSizeThresholds(seconds=seconds, probabilities=printed)
    normalized = ProblemSizeThresholds.normalized(seconds=seconds, probabilities=printed)
    assert normalized.probabilities[0] == pytest.approx(0.65 / 1.1)


@pytest.mark.parametrize(
    ("seconds", "probabilities"),
    [((), ()), ((1.0,), (0.5, 0.5)), ((-1.0,), (1.0,)), ((1.0, 2.0), (1.5, -0.5))],
)
def test_impossible_thresholds_are_refused(
    seconds: tuple[float, ...], probabilities: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="must"):
        ProblemSizeThresholds(seconds=seconds, probabilities=probabilities)
