"""What an evaluation compares with: budgets, baselines, and their trials."""

from __future__ import annotations

import numpy as np
import pytest

from curriculum.evaluation.baseline_budgets import BUDGETS, Trials, expand, setting_text
from curriculum.evaluation.summary import EvaluationConfig
from curriculum.evaluation.twice_as_fast import is_twice_as_fast
from lopt.baselines import BASELINES


def test_budgets_are_the_papers() -> None:
    assert len(BUDGETS["lr15"]) == 15  # VeLO, Sec. 4.1.1, Shampoo apart
    assert {trials.num_trials for trials in BUDGETS["lr15"]} == {15}
    assert BUDGETS["nadamw1000"] == (Trials("nadamw", 1000),)
    assert all(BASELINES[trials.baseline].search_space.kind == "none" for trials in BUDGETS["free"])
    assert {trials.baseline for trials in BUDGETS["free"]} >= {"prodigy", "dog", "mechanic_adamw"}


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_every_budget_has_its_trials(name: str) -> None:
    for trials in BUDGETS[name]:
        assert len(trials.settings()) == trials.num_trials


def test_each_baseline_is_there_once_with_the_most_trials_asked_for() -> None:
    assert expand(("nadamw10", "nadamw100", "nadamw10")) == (Trials("nadamw", 100),)
    assert [t.baseline for t in EvaluationConfig().trials] == ["adam", "adamw_cosine"]
    assert [t.baseline for t in EvaluationConfig(baselines=("muon",)).trials] == ["adam", "muon"]
    extended = EvaluationConfig(baselines=("quick",), normalizer="extended").trials
    assert [t.baseline for t in extended][:2] == ["adam", "radam"]


def test_only_the_normalisers_run_on() -> None:
    config = EvaluationConfig(normalizer_factor=7, points_per_horizon=10)
    assert [config.num_intervals(name) for name in ("adam", "adamw_cosine")] == [70, 10]


def test_who_has_twice_the_steps_is_compared_apart() -> None:
    config = EvaluationConfig(horizon=200, points_per_horizon=10, baselines=("quick", "lhopt35"))
    assert [t.baseline for t in config.trials] == ["adam", "adamw_cosine"]
    assert config.trials_twice_as_long == (Trials("adamw_schedules", 35),)
    assert (config.num_intervals("adamw_schedules"), config.told_steps("adamw_schedules")) == (20, 400)
    assert config.told_steps("adam") == 200
    assert EvaluationConfig().trials_twice_as_long == ()


@pytest.mark.parametrize(
    ("final", "baselines", "expected"),
    [
        ([1.0, 2.0], [[2.0, 1.2], [9.0, 9.0]], True),  # 1.5 < 1.6 in the mean, though one seed is higher
        ([1.0, 2.0], [[2.0, 1.2], [1.0, 1.9]], False),  # one setting is lower
        ([1.0, 2.0], [[1.0, 2.0]], False),  # as low is not lower
        ([1.0, 2.0], [[np.nan, 0.0], [np.inf, 0.0]], True),
        ([1.0, np.nan], [[5.0, 5.0]], False),
        ([1.0, np.inf], [[np.inf, np.inf]], False),
    ],
)
def test_twice_as_fast_by_hand(final: list[float], baselines: list[list[float]], expected: bool) -> None:
    assert is_twice_as_fast(np.asarray(final), np.asarray(baselines)) is expected


def test_a_trial_has_a_name() -> None:
    assert setting_text(Trials("adamw_schedules", 35), 16) == "trial 17 of 35"
    assert setting_text(Trials("adam", 15), 9) == "learning rate 0.003"
    assert setting_text(Trials("nadamw", 100), 16) == "trial 17 of 100"
    assert setting_text(Trials("prodigy", 1), 0) == ""


@pytest.mark.parametrize(
    ("names", "message"),
    [(("adamw_cosin",), "Did you mean 'adamw_cosine'"), (("lr16",), "Did you mean 'lr15'")],
)
def test_unknown_names_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(baselines=names)
