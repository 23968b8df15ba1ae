"""The gates, condition by condition; and percentile tracks."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from pydantic import ValidationError

from curriculum.evaluation.aggregate import stratified_bootstrap
from curriculum.evaluation.summary import CANDIDATE, EvaluationSummary
from curriculum.evaluation.tracks import PERCENTILES, track_values
from curriculum.gates import CONDITIONS, GATES, Gate, get_gate
from curriculum.gates.above_champion_interval import AboveChampionIntervalConfig
from curriculum.gates.champion_ratio import ChampionRatioConfig
from curriculum.gates.enough_evidence import EnoughEvidenceConfig
from curriculum.gates.gain_over_initialisation import GainOverInitialisationConfig
from curriculum.gates.no_divergence import NoDivergenceConfig
from curriculum.gates.quantile_not_worse import QuantileNotWorseConfig
from curriculum.promotion import decide
from lopt.config import derive
from lopt.registry import UnknownNameError
from tests.support.made_up_evaluations import made_up_evaluation

EXAMPLES = {
    "no_divergence": NoDivergenceConfig(),
    "gain_over_initialisation": GainOverInitialisationConfig(held_out=False, min_ratio=1.0),
    "champion_ratio": ChampionRatioConfig(min_ratio=1.0),
    "above_champion_interval": AboveChampionIntervalConfig(),
    "quantile_not_worse": QuantileNotWorseConfig(),
    "enough_evidence": EnoughEvidenceConfig(min_tasks=3, min_seeds=2),
}
FLAT = made_up_evaluation([[2.0, 2.0]] * 4)


def scaled(factor: float, *, slow: float = 1.0) -> EvaluationSummary:
    """Ten tasks × 3 seeds, half of them held out, with the noise of the seeds; `slow` scales the slowest two."""
    rng = np.random.default_rng(0)
    speedups = factor * np.linspace(1.0, 4.0, 10)[:, None] * np.exp(0.05 * rng.standard_normal((10, 3)))
    speedups[:2] *= slow
    return made_up_evaluation(speedups.tolist(), num_held_out=5, initial=0.5)


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_says_its_numbers_and_reads_back(name: str) -> None:
    condition = EXAMPLES[name]
    assert condition.model_dump()["condition"] == name
    gate = Gate(name="one", conditions=(condition,))
    assert Gate.model_validate_json(gate.model_dump_json()) == gate
    check = condition.check(FLAT, FLAT)
    assert check.passed
    assert "n = 4 tasks × 2 seeds" in check.reason
    assert re.search(r"\d", check.reason)


@pytest.mark.parametrize("name", ["champion_ratio", "above_champion_interval", "quantile_not_worse"])
def test_comparisons_are_with_an_evaluation_alike_or_not_at_all(name: str) -> None:
    condition = EXAMPLES[name]
    assert condition.check(FLAT, None).passed
    for other in (
        made_up_evaluation([[1.0, 1.0]] * 4, prefix="other"),
        made_up_evaluation([[1.0, 1.0]] * 4, horizon=100),
        made_up_evaluation([[1.0, 1.0]] * 3),
        made_up_evaluation([[1.0, 1.0, 1.0]] * 4),
    ):
        check = condition.check(FLAT, other)
        assert not check.passed
        assert "run `keirin evaluate champion` with the candidate's --set" in check.reason


def test_a_diverged_seed_is_named() -> None:
    check = NoDivergenceConfig().check(made_up_evaluation([[2.0, 2.0], [math.nan, 2.0]]), None)
    assert not check.passed
    assert "1 of 2 tasks: task1" in check.reason


def test_the_gain_is_on_the_tasks_that_are_meant() -> None:
    """In distribution √(4·1) / 1 = 2; held out 0.5 / 1."""
    evaluation = made_up_evaluation([[4.0], [1.0], [0.5]], num_held_out=1)
    inside = GainOverInitialisationConfig(held_out=False, min_ratio=1.99).check(evaluation, None)
    outside = GainOverInitialisationConfig(held_out=True, min_ratio=0.6).check(evaluation, None)
    assert (inside.passed, outside.passed) == (True, False)
    assert "speed-up 2.00, its initialisation 1.00" in inside.reason
    assert "ratio 0.50, needed: above 0.60" in outside.reason
    none = made_up_evaluation([[1.0]])
    assert (
        "no held-out task"
        in GainOverInitialisationConfig(held_out=True, min_ratio=1.0).check(none, None).reason
    )


def test_what_is_no_better_than_it_was_or_than_a_start_has_no_gain() -> None:
    """Not as the first champion either: the initialisation itself, and weights that learned nothing anywhere."""
    itself = made_up_evaluation([[1.0]] * 4, num_held_out=2)
    condition = GainOverInitialisationConfig(held_out=True, min_ratio=1.0)
    assert not condition.check(itself, None).passed
    useless = made_up_evaluation([[0.0]] * 4, num_held_out=2, initial=0.0)
    check = derive(condition, min_ratio=0.5).check(useless, None)
    assert not check.passed
    assert check.reason == "on no held-out task it ended below the start (n = 2 tasks × 1 seed)"
    held_out = made_up_evaluation([[1.0]] * 24, num_held_out=24)
    for evaluation in (itself, useless, held_out):
        assert not any(decide(evaluation, None, gate).promote for gate in GATES.values())


def test_a_bound_that_helps_the_candidate_counts_against_it() -> None:
    """Cap 10: where only the initialisation or the champion is there, it counts with 30, the most of any table."""
    capped = made_up_evaluation([[10.0, 10.0], [2.0, 2.0]], initial=10.0)
    check = GainOverInitialisationConfig(held_out=False, min_ratio=0.4).check(capped, None)
    assert not check.passed  # √(10 · 2) / √(10 · 30) = 0.26, where √(10 · 2) / 10 = 0.45 would do
    assert "speed-up ≥ 4.47, its initialisation 17.32" in check.reason
    assert "1 of the latter's at the cap of 10× count as 30× where the candidate's is not" in check.reason
    champion = made_up_evaluation([[10.0, 10.0]] * 4)
    below = made_up_evaluation([[10.0, 10.0]] * 3 + [[9.0, 9.0]])
    # (9 / 30)^¼ = 0.74, where (9 / 10)^¼ = 0.97 would do; and 9 / 30.
    for condition in (
        ChampionRatioConfig(min_ratio=0.9),
        QuantileNotWorseConfig(quantile=1.0, min_ratio=0.9),
    ):
        assert condition.check(champion, champion).passed  # both at the cap count alike
        failed = condition.check(below, champion)
        assert not failed.passed
        assert "`--normalizer-factor` raises the cap" in failed.reason
    # Interquartile means of 10, 10, 6, 6 and 9, 9, 6, 6: with noise, 7.5 would do for 8, but does not for 18.
    noisy = made_up_evaluation([[10.0, 10.0]] * 2 + [[3.0, 9.0]] * 2)
    close = made_up_evaluation([[9.0, 9.0]] * 2 + [[6.0, 6.0]] * 2)
    assert stratified_bootstrap(noisy.speedups(CANDIDATE)).low < 7.5
    assert not AboveChampionIntervalConfig().check(close, noisy).passed
    reason = AboveChampionIntervalConfig().check(close, noisy).reason
    assert "7.50 against the champion's 18.00 [15.00, 18.00]" in reason


def test_at_the_largest_normaliser_a_bound_counts_still() -> None:
    """VeLO's cap, 30: three times that."""
    capped = made_up_evaluation([[30.0], [29.0]], initial=30.0, factor=30)
    check = GainOverInitialisationConfig(held_out=False, min_ratio=0.9).check(capped, None)
    assert not check.passed  # (30 · 29 / 30 / 90)^½ = 0.57
    assert "at the cap of 30× count as 90×" in check.reason


def test_a_gain_that_no_task_has_shown_is_none() -> None:
    """Weights that do not say what they were trained on: of no task it is known that it is held out."""
    fast = made_up_evaluation([[9.0]] * 3)
    unknown = derive(fast, tasks=tuple(derive(task, held_out=None) for task in fast.tasks))
    held_out = GainOverInitialisationConfig(held_out=True, min_ratio=1.0)
    check = held_out.check(unknown, None)
    assert not check.passed
    assert "no held-out task was evaluated; of 3 of 3 it is not known" in check.reason
    assert derive(held_out, needs_tasks=False).check(unknown, None).passed
    assert not decide(unknown, None, GATES["default"]).promote
    everything = made_up_evaluation([[9.0]] * 3, num_held_out=3)
    assert decide(everything, None, GATES["default"]).promote


def test_the_ratio_to_the_champion_needs_such_tasks() -> None:
    condition = ChampionRatioConfig(held_out=True, min_ratio=1.0)
    assert not condition.check(FLAT, FLAT).passed  # none is held out: nothing is known
    one, other = (made_up_evaluation([[9.0], [value]], num_held_out=1) for value in (1.0, 2.0))
    assert not condition.check(one, other).passed
    assert condition.check(other, one).passed


def test_held_out_is_what_is_held_out_from_both_trainings() -> None:
    """The champion was trained on tasks 2 and 3, the candidate only on 0 to 2: task 3 is no fair comparison."""
    candidate = made_up_evaluation([[1.0], [1.0], [1.0], [1.0], [3.0]], num_held_out=2)
    champion = made_up_evaluation([[1.0], [1.0], [1.0], [9.0], [2.0]], num_held_out=1)
    check = ChampionRatioConfig(held_out=True, min_ratio=1.0).check(candidate, champion)
    assert check.passed
    assert "speed-up 3.00 against the champion's 2.00 (geometric means, n = 1 task × 1 seed" in check.reason


def test_the_strict_gate_compares_on_as_many_held_out_tasks_as_it_asks_for() -> None:
    """Four are held out from the candidate's training and one from the champion's: one is compared on."""
    speeds = [[2.0, 2.0, 2.0]] * 9
    candidate = made_up_evaluation([*speeds, [2.1] * 3], num_held_out=4)
    check = decide(
        candidate, made_up_evaluation([*speeds, [2.0] * 3], num_held_out=1), GATES["strict"]
    ).checks[-1]
    assert (check.name, check.passed) == ("champion, held-out", False)
    assert check.reason == "1 held-out task of both: needed to compare: 4"
    alike = made_up_evaluation([*speeds, [2.0] * 3], num_held_out=4)
    assert decide(candidate, alike, GATES["strict"]).promote


def test_above_the_interval_is_where_the_bootstrap_says() -> None:
    champion = scaled(1.0)
    estimate = stratified_bootstrap(champion.speedups(CANDIDATE))
    assert estimate.low < estimate.value
    condition = AboveChampionIntervalConfig()
    for factor in (0.5 * (estimate.low / estimate.value + 1.0), 1.0, 2.0):
        assert condition.check(scaled(factor), champion).passed
    check = condition.check(scaled(0.99 * estimate.low / estimate.value), champion)
    assert not check.passed
    assert f"needed: above {estimate.low:.2f}" in check.reason


def test_with_one_seed_there_is_no_interval_and_the_value_decides() -> None:
    champion = made_up_evaluation([[2.0], [2.0]])
    condition = AboveChampionIntervalConfig()
    assert condition.check(made_up_evaluation([[2.0], [2.0]]), champion).passed
    check = condition.check(made_up_evaluation([[1.99], [1.99]]), champion)
    assert not check.passed
    assert "needed: at least 2.00" in check.reason
    assert "nan" not in check.reason


def test_the_tenth_percentile_sees_a_slow_end_that_the_mean_does_not() -> None:
    champion, candidate = scaled(1.0), scaled(1.2, slow=0.5)
    assert AboveChampionIntervalConfig().check(candidate, champion).passed
    assert not QuantileNotWorseConfig().check(candidate, champion).passed
    assert QuantileNotWorseConfig(min_ratio=0.5).check(candidate, champion).passed


@pytest.mark.parametrize(
    ("condition", "passes"),
    [
        (EnoughEvidenceConfig(min_tasks=10, min_held_out=5, min_seeds=3), True),
        (EnoughEvidenceConfig(min_tasks=11), False),
        (EnoughEvidenceConfig(min_tasks=1, min_held_out=6), False),
        (EnoughEvidenceConfig(min_tasks=1, min_seeds=4), False),
    ],
)
def test_evidence_is_counted(condition: EnoughEvidenceConfig, passes: bool) -> None:
    assert condition.check(scaled(1.0), None).passed is passes


@pytest.mark.parametrize(
    ("candidate", "champion", "failing"),
    [
        (scaled(1.0), None, []),
        (scaled(1.0), scaled(1.0), []),
        (scaled(1.5), scaled(1.0), []),
        (
            scaled(0.8),
            scaled(1.0),
            ["champion, interquartile mean", "champion, 10th percentile", "champion, held-out"],
        ),
        (scaled(1.2, slow=0.5), scaled(1.0), ["champion, 10th percentile"]),
        (made_up_evaluation([[2.0, 2.0, 2.0]] * 9), None, ["evidence", "held-out"]),
    ],
)
def test_the_strict_gate(
    candidate: EvaluationSummary, champion: EvaluationSummary | None, failing: list[str]
) -> None:
    decision = decide(candidate, champion, GATES["strict"])
    assert [check.name for check in decision.checks if not check.passed] == failing
    assert decision.promote == (not failing)
    assert decision.gate == "strict"
    assert len(decision.checks) == len(GATES["strict"].conditions)


def test_unknown_gates_and_conditions_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown gate 'strickt'.*Did you mean 'strict'"):
        get_gate("strickt")
    with pytest.raises(ValidationError, match="no_divergence"):
        Gate.model_validate({"name": "g", "conditions": [{"condition": "no_divergance"}]})
    with pytest.raises(ValidationError, match="at least 1"):
        Gate(name="empty", conditions=())


def test_a_track_by_hand() -> None:
    """Eleven tasks with speed-ups 0, 1, …, 10: the p-th percentile is p/10, the middle half's mean 5."""
    summary = made_up_evaluation([[float(value)] * 2 for value in range(10)] + [[10.0, 10.0]])
    values = track_values(summary)
    assert values.percentiles == pytest.approx({p: p / 10 for p in PERCENTILES})
    assert values.interquartile_mean.value == pytest.approx(5.0)
    assert values.num_diverged == 0
    assert (
        values.bounds == ()
    )  # the task at the cap of 10 moves no percentile up to the 90th, nor the middle half


def test_a_track_says_what_rests_on_the_cap() -> None:
    """Cap 10: of four tasks the upper two are there, so that the 50th percentile lies between 1 and a bound."""
    values = track_values(made_up_evaluation([[1.0, 1.0], [1.0, 1.0], [10.0, 10.0], [10.0, 10.0]]))
    assert values.bounds == ("50", "75", "90", "value", "low", "high")
    alone = track_values(made_up_evaluation([[1.0], [10.0], [10.0], [10.0]]))
    assert set(alone.bounds) == {"10", "25", "50", "75", "90", "value", "5"}  # one seed: no interval
    values = track_values(made_up_evaluation([[2.0, 10.0, 10.0]] * 8))
    uneven = values.interquartile_mean
    assert values.bounds == ("high",)  # the lower end is moved by a middle that may be higher
    assert uneven.value == pytest.approx(
        22 / 3
    )  # below the cap, where the middle of two redrawn seeds may not be
    assert uneven.low < uneven.value


def test_a_diverged_run_counts_as_no_speed_up() -> None:
    """The mean loss over seeds is not finite, so the task counts as 0, whatever the other seed did."""
    values = track_values(made_up_evaluation([[math.nan, 4.0], [4.0, 4.0]]))
    assert values.percentiles[50] == pytest.approx(2.0)  # between 0 and 4
    assert values.num_diverged == 1


def test_a_track_of_one_seed_has_no_interval() -> None:
    mean = track_values(made_up_evaluation([[1.0], [3.0]])).interquartile_mean
    assert mean.value == 2.0
    assert math.isnan(mean.low)
    assert math.isnan(mean.high)
