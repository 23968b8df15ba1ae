"""Every registered probe keeps the contract; and what can be worked out by hand comes out that way."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest

from curriculum.probes import PROBES, Bench, ProbeRefusedError, ProbeResult, Subject
from curriculum.probes.batch_size import BatchSize
from curriculum.probes.continuation import ContinuationRanks
from curriculum.probes.ensembles import chosen_blindly, greedy_order
from curriculum.probes.horizon_adaptation import HorizonAdaptation
from curriculum.probes.loss_feature import LossFeature
from curriculum.probes.self_training import SelfTraining
from curriculum.probes.smoothing import DIRECTIONS, Smoothing, smoothness
from curriculum.probes.step_sizes import StepSizes
from curriculum.probes.sweeps import Sweeps
from curriculum.probes.tasks import mlp, quadratic
from curriculum.probes.training import PROBE_STREAM, with_training_examples
from curriculum.probes.training_tasks import TrainingTasks
from curriculum.probes.update_cost import UpdateCost, fit_costs
from curriculum.worker import key_from_seed
from lopt.architectures.learnable_adam import LearnableAdamConfig
from lopt.architectures.learnable_sgd import LearnableSgdConfig
from lopt.architectures.pacer import PacerConfig
from lopt.architectures.velo import VeloConfig
from lopt.contract import ArchitectureConfig

RATE = 0.02
SGD = LearnableSgdConfig(initial_learning_rate=RATE)
ADAM = LearnableAdamConfig()
PACER = PacerConfig(hidden_size=2, controller_size=2)
VELO = VeloConfig(lstm_hidden_size=4, mlp_bank_size=3, mlp_hidden_size=2)
FITTING: dict[str, ArchitectureConfig] = {"loss_feature": PACER, "controller_outputs": VELO}
"""What is probed where plain SGD won't do."""

TAKES_LONG = {
    "batch_size",
    "controller_outputs",
    "ensembles",
    "loss_feature",
    "model_size",
    "self_training",
    "sweeps",
    "training_tasks",
}
RUN = [pytest.param(name, marks=[pytest.mark.slow] * (name in TAKES_LONG)) for name in PROBES]


def subject_of(config: ArchitectureConfig, label: str = "subject") -> Subject:
    return Subject(label, config, config.build().init_theta(jax.random.key(1)))


def ticking() -> Any:
    """Returns a clock that says 0, 1, 2, … milliseconds."""
    ticks = itertools.count()
    return lambda: 1e-3 * next(ticks)


def bench() -> Bench:
    return Bench(others=(subject_of(ADAM, "another"),), clock=ticking())


@functools.cache
def result_of(name: str, *, again: int = 0) -> ProbeResult:
    return PROBES[name].quick().run(subject_of(FITTING.get(name, SGD)), bench())


def series(result: ProbeResult, panel: int, part: str) -> Any:
    (found,) = [s for s in result.panels[panel].series if part in s.name]
    return found


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_explains_itself(name: str) -> None:
    probe = PROBES[name]
    assert probe.name == name
    assert len(probe.how_to_read.split()) > 40
    assert probe.question.endswith("?")
    assert "Metz et al. 20" in probe.source
    assert "Fig" in probe.source or "Table" in probe.source
    assert probe.deviations
    assert set(probe.quick_sizes) <= set(probe.model_fields)
    assert probe().fingerprint() != probe.quick().fingerprint()


@pytest.mark.parametrize("name", RUN)
def test_a_result_is_finite_labelled_and_survives_json(name: str) -> None:
    result = result_of(name)
    assert result.n >= 1
    assert result.counted
    assert result.findings
    for panel in result.panels:
        assert panel.title
        if panel.kind == "table":
            assert np.shape(panel.values) == (len(panel.rows), len(panel.columns))
            assert np.isfinite(panel.values).all()
            continue
        assert panel.x_label
        assert panel.y_label
        assert panel.series
        for s in panel.series:
            assert len(s.x) == len(s.y) > 0
            assert np.isfinite([*s.x, *s.y]).all(), s.name
            assert len(s.low) == len(s.high) in (0, len(s.y))
            assert all(low <= high for low, high in zip(s.low, s.high, strict=True))
    assert ProbeResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("name", RUN)
def test_same_seed_same_bits(name: str) -> None:
    assert result_of(name, again=1) == result_of(name)


def test_another_seed_gives_other_runs() -> None:
    other = HorizonAdaptation.quick(seed=1).run(subject_of(SGD))
    assert other.panels[0].series[0].y != result_of("horizon_adaptation").panels[0].series[0].y


@pytest.mark.slow
@pytest.mark.parametrize("config", [PACER, VELO], ids=lambda config: config.architecture)
@pytest.mark.parametrize("name", sorted(set(PROBES) - {"controller_outputs"}))
def test_networks_can_be_probed_too(name: str, config: ArchitectureConfig) -> None:
    result = PROBES[name].quick().run(subject_of(config), bench())
    assert np.isfinite([y for panel in result.panels for s in panel.series for y in s.y]).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loss_feature", "it does not read the loss; those that do: 'pacer', 'rnn_mlp', 'velo'"),
        ("controller_outputs", "it has no LSTM per tensor; those that have one: 'rnn_mlp', 'velo'"),
    ],
)
def test_a_probe_that_does_not_fit_says_what_does(name: str, said: str) -> None:
    with pytest.raises(ProbeRefusedError, match=f"probe '{name}' does not fit subject: {said}"):
        PROBES[name].quick().run(subject_of(SGD))


def test_an_ensemble_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two optimizers, got one"):
        PROBES["ensembles"].quick().run(subject_of(SGD))


def test_what_ignores_the_horizon_traces_one_line() -> None:
    result = result_of("horizon_adaptation")
    short, long = (dict(zip(s.x, s.y, strict=True)) for s in result.panels[0].series)
    shared = set(short) & set(long)
    assert len(shared) >= 2, (short, long)
    assert all(short[x] == long[x] for x in shared)
    assert result.panels[-1].series[0].y == (1.0, 1.0)


def test_steps_of_gradient_descent_are_the_rate_times_the_gradient() -> None:
    probe = StepSizes.quick(tasks=(quadratic(dimension=3),), num_windows=4, window=3, num_seeds=1)
    (only,) = probe.run(subject_of(SGD)).panels[0].series
    dynamic_key, _ = jax.random.split(key_from_seed((PROBE_STREAM, 0, 0)))
    bowl = quadratic(dimension=3).build().sample_dynamic(dynamic_key)
    w, target, x = (
        np.asarray(part, np.float64) for part in (bowl.problem.coupling, bowl.problem.target, bowl.start["x"])
    )
    steps = []
    for _ in range(12):
        step = RATE * w.T @ (w @ x - target)
        steps.append(np.abs(step).mean())
        x = x - step
    np.testing.assert_allclose(only.y, np.reshape(steps, (4, 3)).mean(axis=1), rtol=1e-4)


def test_gradient_descent_ends_at_the_nearest_minimum() -> None:
    # x + y never changes, and x − y shrinks by 1 − 2 · rate in every step.
    result = result_of("implicit_regularization")
    paths = [s for s in result.panels[1].series if s.name == "trajectory"]
    assert len(paths) == result.n == 6
    for path in paths:
        x, y = np.asarray(path.x), np.asarray(path.y)
        np.testing.assert_allclose(x + y, x[0] + y[0], atol=1e-5)
        np.testing.assert_allclose(x - y, (x[0] - y[0]) * (1 - 2 * RATE) ** (4 * np.arange(6)), rtol=1e-4)
    assert "ends at 1.00 × the nearest minimum (median; from 1.00 to 1.00 over" in result.findings[1]


def test_a_rule_and_its_baseline_lie_on_each_other_along_the_batch_sizes() -> None:
    probe = BatchSize.quick(baselines=("sgd",), learning_rates=(RATE,), batch_sizes=(16, 32))
    ours, theirs = probe.run(subject_of(SGD)).panels[0].series
    np.testing.assert_allclose(ours.y, theirs.y, rtol=1e-4)
    assert ours.y[0] < ours.y[1]  # twice the steps


@pytest.mark.slow
def test_a_rule_and_its_baseline_lie_on_each_other_along_the_data_sizes() -> None:
    rate = ADAM.initial_learning_rate
    probe = Sweeps.quick(learning_rates=(rate,), widths=(4, 8), batch_sizes=(16, 8))
    for panel in probe.run(subject_of(ADAM)).panels:
        theirs, ours = panel.series
        np.testing.assert_allclose(ours.y, theirs.y, rtol=1e-3)


def test_a_rule_trains_its_own_kind_as_its_baseline_does() -> None:
    rate = ADAM.initial_learning_rate
    ours, theirs = SelfTraining.quick(learning_rates=(rate,)).run(subject_of(ADAM)).panels[0].series
    np.testing.assert_allclose(ours.y, theirs.y, rtol=1e-3)


@pytest.mark.slow
def test_an_untrained_pacer_does_not_look_at_the_loss() -> None:
    # Its controller ends in a layer of zeros, so what it is shown cannot matter.
    result = result_of("loss_feature")
    for panel, kind in ((0, " · held-out"), (0, " · training"), (1, "")):
        pair = [s.y for s in result.panels[panel].series if s.name.endswith(f"loss{kind}")]
        assert len(pair) == 2
        assert pair[0] == pair[1]


@pytest.mark.slow
def test_a_trained_controller_looks_at_the_loss() -> None:
    subject = subject_of(PACER)
    theta = jax.tree.map(lambda x: x + 0.3, subject.theta["controller"])
    moved = subject._replace(theta={**subject.theta, "controller": theta})
    steps = LossFeature.quick().run(moved).panels[1].series
    assert steps[0].y != steps[1].y


def test_without_progress_all_ways_of_going_on_are_the_same() -> None:
    result = result_of("continuation")
    assert result.panels[1].values == ((1.0, 0.0, 0.0, 0.0, 0.0),) * 5
    tails = [s.y for s in result.panels[0].series[2:]]
    assert all(tail == tails[0] for tail in tails)


def test_going_on_goes_on_from_where_the_run_was() -> None:
    # A run of 40 steps is a run of 20 and another 20: the same losses at the same steps.
    result = result_of("continuation")
    before, complete = result.panels[0].series[0], series(result, 0, "complete")
    assert before.x[-1] < complete.x[0]
    assert complete.x[-1] == ContinuationRanks.quick().num_steps
    assert complete.y[0] < before.y[0]


def test_members_join_by_what_they_add() -> None:
    # The second is best alone (√(3·3) = 3); the first adds more to it (√(8·3)) than the third (√(4·3)).
    means = np.asarray([[8.0, 3.0, 4.0], [0.5, 3.0, 1.0]])
    assert greedy_order(means) == [1, 0, 2]


def test_choosing_by_other_seeds_never_uses_the_seed_that_counts() -> None:
    # On each seed another member is lucky: hindsight takes 3 every time, the other seeds always choose wrongly.
    lucky = np.asarray([[[3.0, 0.0], [0.0, 3.0]]])
    np.testing.assert_allclose(chosen_blindly(lucky), 0.01)  # the floor
    constant = np.asarray([[[1.0, 1.0], [2.0, 2.0]]])
    np.testing.assert_allclose(chosen_blindly(constant), 2.0)


@pytest.mark.slow
def test_an_ensemble_starts_with_its_best_member_and_never_falls() -> None:
    result = result_of("ensembles")
    hindsight, members = result.panels[0].series[0].y, np.asarray(result.panels[1].values)
    assert hindsight[0] == pytest.approx(np.exp(np.log(members).mean(axis=1)).max())
    assert hindsight[-1] == pytest.approx(np.exp(np.log(members.max(axis=0)).mean()))
    assert hindsight[0] <= hindsight[-1]


def test_meta_training_that_does_not_move_changes_nothing() -> None:
    probe = TrainingTasks.quick(learning_rate=1e-12, outer_steps=2)
    unseen, _, before = probe.run(subject_of(SGD)).panels[0].series
    np.testing.assert_allclose(unseen.y, before.y, rtol=1e-6)


def test_what_a_pair_says_by_hand() -> None:
    # Log losses a·ε + ½·c·ε² at ε = ±1 and ±2: differences a·ε; c·ε²/2 on average above the loss at θ.
    at_theta, epsilon, curvature = (
        np.asarray([0.5, -0.5]),
        np.asarray([[1.0], [2.0]]),
        0.25 * np.asarray([[0.5], [2.0]]),
    )
    for slopes, repeated in (
        ([1.0, 1.0], 1.0),
        ([1.0, -1.0], -1.0),
        ([1.0, 0.5], 1.0 / 1.25),
        ([1.0, 0.0], 0.0),
    ):
        differences = epsilon * np.asarray(slopes)
        twins = (at_theta + curvature + sign * differences for sign in (1.0, -1.0))
        found = smoothness(at_theta, *twins)
        assert found.cost == pytest.approx(curvature.mean())
        assert found.difference == pytest.approx(np.sqrt(np.mean(differences**2)))
        assert found.repeated == pytest.approx(repeated)
    assert smoothness(at_theta, *2 * [np.zeros((2, 2)) + at_theta]).repeated == 0.0  # nothing to repeat


def test_the_neighbours_of_gradient_descent_are_other_rates() -> None:
    probe = Smoothing.quick(horizons=(12,), num_seeds=3)
    task, at = probe.tasks[0].build(), []
    epsilon = np.asarray(
        jax.random.normal(key_from_seed((PROBE_STREAM, 0, DIRECTIONS)), (probe.num_pairs, 1)), np.float64
    )
    for seed in range(3):
        dynamic_key, _ = jax.random.split(key_from_seed((PROBE_STREAM, 0, seed)))
        bowl = task.sample_dynamic(dynamic_key)
        w, target, start = (
            np.asarray(part, np.float64)
            for part in (bowl.problem.coupling, bowl.problem.target, bowl.start["x"])
        )

        def log_loss(log_rate: float, w: Any = w, target: Any = target, x: Any = start) -> float:
            for _ in range(12):
                x = x - np.exp(log_rate) * w.T @ (w @ x - target)
            return float(np.log(0.5 * np.sum((w @ x - target) ** 2) + 1e-3))

        moved = np.log(RATE) + np.asarray([[s * probe.sigmas[1] * epsilon[:, 0]] for s in (1.0, -1.0)])
        at.append((log_loss(np.log(RATE)), *(np.vectorize(log_loss)(m[0]) for m in moved)))
    expected = smoothness(np.asarray([a[0] for a in at]), *(np.stack([a[k] for a in at], 1) for k in (1, 2)))
    cost, difference, repeated = (panel.series[0].y[1] for panel in probe.run(subject_of(SGD)).panels)
    assert cost == pytest.approx(expected.cost, abs=1e-5)
    assert difference == pytest.approx(expected.difference, rel=1e-3)
    assert repeated == pytest.approx(expected.repeated, rel=1e-3)


def test_costs_of_a_made_up_machine_are_found_again() -> None:
    sizes = 3.0 * 4.0 ** np.arange(3, 11)
    fit = fit_costs(sizes, 2e-5 + 3e-9 * sizes)
    assert fit.overhead == pytest.approx(2e-5, rel=1e-4)
    assert fit.per_parameter == pytest.approx(3e-9, rel=1e-4)
    np.testing.assert_allclose(fit.seconds(sizes), 2e-5 + 3e-9 * sizes, rtol=1e-4)


def test_times_are_the_clocks() -> None:
    # Every update takes one tick, a millisecond, whatever its size: all overhead.
    result = UpdateCost.quick().run(subject_of(SGD), Bench(clock=ticking()))
    measured = [s for s in result.panels[0].series if not s.name]
    assert [s.y for s in measured] == [(pytest.approx(1e-3),) * 2] * 3
    assert result.findings[0].startswith("subject: 1,000 µs")


def test_few_examples_are_those_and_no_others() -> None:
    family = mlp().build()
    few = with_training_examples(family, 4, out_of=1024)
    assert few.data.train.labels.shape == (1024,)
    images = np.asarray(few.data.train.images).reshape(256, 4, -1)
    assert (images == np.asarray(family.data.train.images[:4]).reshape(1, 4, -1)).all()
    with pytest.raises(ValueError, match="must divide 1024"):
        with_training_examples(family, 3, out_of=1024)
