"""Speed-ups, curves, summaries and the promotion gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import curriculum.evaluation.curves
from curriculum.evaluation.curves import CurveBatch, CurveUnit, baseline_json, prepare_curves, run_curve_unit
from curriculum.evaluation.speedup import fit_normalizer, seed_mean, tuned_index
from curriculum.evaluation.summary import (
    NORMALIZERS,
    EvaluationConfig,
    EvaluationSummary,
    OptimizerResult,
    TaskResult,
    summarize_task,
    task_normalizer,
)
from curriculum.gates import GATES
from curriculum.promotion import decide
from lopt.architectures.pacer import PacerConfig
from lopt.config import derive
from lopt.inner_loop import LearningCurve
from task_generator.evaluation_task import EvaluationTask
from task_generator.task_config import TaskConfig


def test_normalizer_matches_the_released_one(golden: Path) -> None:
    data = np.load(golden / "g_speedup_normalizer.npz")
    for points, suffix in ((512, ""), (2048, "_v2")):
        ours = fit_normalizer(data["xs"], data["adam_losses"], ema=0.95, num_points=points)
        np.testing.assert_allclose(ours.steps, data[f"norm{suffix}_xp"], rtol=1e-6)
        np.testing.assert_allclose(ours.losses, data[f"norm{suffix}_yp"], rtol=1e-5)
    ours = fit_normalizer(data["xs"], data["adam_losses"], ema=0.95, num_points=512)
    np.testing.assert_allclose(
        ours.equivalent_steps(data["query_loss"]), data["query_normalized"], rtol=1e-3, atol=0.5
    )
    np.testing.assert_allclose(
        ours.equivalent_steps(data["target_losses"]), data["target_normalized"], rtol=1e-3, atol=0.5
    )


def test_speedup_by_hand() -> None:
    """Best envelope 4, 2, 1 at steps 0, 10, 20: loss 1.5 is reached at step 15; trained 5 steps → 3 times."""
    curves = np.asarray([[[4.0, 2.0, 3.0]], [[4.0, 3.0, 1.0]], [[4.0, np.nan, np.nan]]])
    normalizer = fit_normalizer(np.asarray([0, 10, 20]), curves)
    assert normalizer.losses.tolist() == [4.0, 2.0, 1.0]
    speedups = normalizer.speedup(np.asarray([1.5, 0.5, 9.0, np.nan]), 5)
    np.testing.assert_allclose(
        speedups, [3.0, 4.0, 0.0, 0.0]
    )  # capped at 20/5; worse than the start; diverged


def test_flat_envelope_counts_from_its_first_step() -> None:
    normalizer = fit_normalizer(np.asarray([0, 1, 2, 3]), np.asarray([[[3.0, 1.0, 1.0, 1.0]]]))
    assert float(normalizer.equivalent_steps(1.0)) == 1.0


def test_below_a_flat_the_way_down_begins_at_its_end() -> None:
    """Losses 1 at step 0, .5 from 100 to 400, .4 at 500: .45 is half-way between 400 and 500."""
    curves = np.asarray([[[1.0, 0.5, 0.5, 0.5, 0.5, 0.4]]])
    normalizer = fit_normalizer(np.arange(6) * 100, curves)
    steps = normalizer.equivalent_steps(np.asarray([0.75, 0.5, 0.499, 0.45, 0.4, 0.3, 1.0, 1.1]))
    np.testing.assert_allclose(steps, [50.0, 100.0, 401.0, 450.0, 500.0, 500.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("horizon", "points"), [(200, 20), (2_000, 20), (250, 25), (50, 25), (30, 15), (13, 13), (2, 2), (34, 17)]
)
def test_the_last_point_of_a_curve_is_at_the_horizon(horizon: int, points: int) -> None:
    config = EvaluationConfig(horizon=horizon, normalizer_factor=3)
    assert config.last_point == points
    assert config.last_point * config.eval_every == horizon
    assert config.num_intervals("adam") * config.eval_every == 3 * horizon


def test_a_horizon_without_such_a_point_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a multiple of a number from 10 to 40.*got 101. Try 100"):
        EvaluationConfig(horizon=101)


def test_tuned_index_never_picks_a_diverged_rate() -> None:
    curves = np.asarray([[[1.0, np.nan]], [[1.0, 0.5]], [[1.0, 0.7]]])
    assert tuned_index(curves, 1) == 1


def test_curves_of_many_settings_equal_one_by_one(tiny_tasks: tuple[TaskConfig, ...]) -> None:
    unit = CurveUnit(tiny_tasks[0].canonical_json(), baseline_json("adam"), (0, 1), 8, 3, 4, 1)
    both = run_curve_unit(unit, [1e-3, 1e-1])
    alone = run_curve_unit(unit, [1e-1])
    assert both.losses["train"].shape == (2, 2, 3)
    assert both.step.tolist() == [0, 4, 8]
    assert both.seconds_per_step > 0
    np.testing.assert_allclose(both.losses["train"][1], alone.losses["train"][0], rtol=1e-4)
    assert not np.allclose(both.losses["train"][0, :, -1], both.losses["train"][1, :, -1])
    np.testing.assert_allclose(both.losses["train"][0, :, 0], both.losses["train"][1, :, 0], rtol=1e-6)


def test_settings_that_are_too_many_for_one_program_are_shared_out_evenly(
    tiny_tasks: tuple[TaskConfig, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five, four at a time at most: twice three. What fills the second up is left out."""
    unit = CurveUnit(tiny_tasks[0].canonical_json(), baseline_json("adam"), (0,), 8, 2, 8, 1)
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    together = run_curve_unit(unit, rates)
    programs: list[list[float]] = []

    def noted(unit: CurveUnit, settings: list[float]) -> Callable[[], LearningCurve]:
        programs.append(settings)
        return prepare_curves(unit, settings)

    monkeypatch.setattr(curriculum.evaluation.curves, "prepare_curves", noted)
    shared = run_curve_unit(unit._replace(settings_at_once=4), rates)
    assert programs == [[1e-4, 1e-3, 1e-2], [1e-1, 1.0, 1.0]]
    assert shared.losses["train"].shape == (5, 1, 2)
    np.testing.assert_allclose(shared.losses["train"], together.losses["train"], rtol=1e-4)


def test_curves_of_a_learned_optimizer(tiny_tasks: tuple[TaskConfig, ...]) -> None:
    config = PacerConfig()
    theta = config.build().init_theta(jax.random.key(0))
    unit = CurveUnit(tiny_tasks[1].canonical_json(), config.canonical_json(), (0,), 200, 2, 200, 2)
    batch = run_curve_unit(unit, [theta, jax.tree.map(lambda x: x * 0.0, theta)])
    assert batch.losses["train"][0, 0, 1] < 0.8 * batch.losses["train"][0, 0, 0]  # it learns
    assert batch.losses["train"][1, 0, 1] == batch.losses["train"][1, 0, 0]  # a theta of zeros stands still


def summary(candidate: float, initial: float, *, final: float = 0.1, horizon: int = 200) -> EvaluationSummary:
    def result(name: str, speedup: float, loss: float = 0.1) -> OptimizerResult:
        return OptimizerResult(
            optimizer=name, final_losses=(loss, 0.1), speedup=speedup, seed_speedups=(speedup, speedup)
        )

    tasks = tuple(
        TaskResult(
            task=name,
            held_out=held_out,
            results=(result("candidate", candidate, final), result("initialisation", initial)),
        )
        for name, held_out in (("seen", False), ("unseen", True))
    )
    return EvaluationSummary(config=EvaluationConfig(horizon=horizon, num_seeds=2), tasks=tasks)


@pytest.mark.parametrize(
    ("candidate", "champion", "failing"),
    [
        (summary(2.0, 1.0), None, None),
        (summary(2.0, 1.0), summary(1.5, 1.0), None),
        (summary(2.0, 1.0, final=float("nan")), None, "stability"),
        (summary(0.9, 1.0), None, "in-distribution"),
        (summary(2.0, 1.0), summary(2.5, 1.0), "champion"),
        (summary(2.0, 1.0), summary(1.5, 1.0, horizon=100), "champion"),
    ],
)
def test_gate(candidate: EvaluationSummary, champion: EvaluationSummary | None, failing: str | None) -> None:
    decision = decide(candidate, champion, GATES["default"])
    failed = [check.name for check in decision.checks if not check.passed]
    assert decision.promote == (failing is None)
    assert (failing in failed) if failing else not failed
    assert len(decision.reasons) == 4
    assert all(reason.startswith(("passed: ", "failed: ")) for reason in decision.reasons)


def test_summary_survives_json_with_a_diverged_seed() -> None:
    before = summary(2.0, 1.0, final=float("nan"))
    after = EvaluationSummary.model_validate_json(before.model_dump_json())
    assert after.diverged("candidate") == ("seen", "unseen")
    assert after.geometric_mean_speedup("candidate") == pytest.approx(2.0)
    stored = json.dumps(before.model_dump(mode="json"), allow_nan=False)  # as files are written
    assert EvaluationSummary.model_validate(json.loads(stored)).diverged("candidate") == ("seen", "unseen")


def evaluation_task() -> EvaluationTask:
    return EvaluationTask(
        name="t",
        config=TaskConfig.model_validate(
            {
                "family": {
                    "family": "mlp",
                    "hidden_size": 8,
                    "num_layers": 1,
                    "image_size": 8,
                    "batch_size": 8,
                    "dataset": "digits",
                }
            }
        ),
    )


def curves(*settings: list[float]) -> CurveBatch:
    """One seed, points at 0, 5, 10, 15 and 20."""
    return CurveBatch(np.asarray([0, 5, 10, 15, 20]), {"train": np.asarray(settings)[:, None]}, 1e-3)


def test_summarize_task_tunes_and_normalises() -> None:
    """The third of fifteen rates is best: envelope 4, 2, 1, 0.9, 0.8; a loss of 0.9 takes 15 steps, not 10."""
    config = EvaluationConfig(
        horizon=10, points_per_horizon=2, normalizer_factor=2, num_seeds=1, baselines=("adam",)
    )
    slow, best = [4.0, 3.5, 3.0, 2.5, 2.0], [4.0, 2.0, 1.0, 0.9, 0.8]
    result = summarize_task(
        config,
        evaluation_task(),
        held_out=True,
        learned={"candidate": np.asarray([[4.0, 1.0, 0.9]])},
        baselines={"adam": curves(slow, slow, best, *[slow] * 12)},
    )
    assert result.family == "mlp"
    assert (result.result("adam").setting, result.result("adam").trial) == ("learning rate 1e-06", 2)
    assert result.result("adam").num_trials == 15
    assert result.result("adam").speedup == pytest.approx(1.0)
    assert result.result("candidate").speedup == pytest.approx(1.5)
    with pytest.raises(ValueError, match=r"missing: \['adam'\]"):
        summarize_task(config, evaluation_task(), held_out=True, learned={}, baselines={})


def test_summarize_task_asks_who_had_twice_the_steps() -> None:
    """The candidate ends at 0.9 after 10 steps; of those with twice the steps the best one decides."""
    config = EvaluationConfig(
        horizon=10, points_per_horizon=2, normalizer_factor=1, num_seeds=1, baselines=("lhopt35",)
    )

    def is_twice(best: float) -> list[bool | None]:
        poor = [4.0, 0.1, 0.1, 0.1, 2.0]  # low on the way, which does not count
        baselines = {
            "adam": curves(*[[4.0, 2.0, 1.0, 1.0, 1.0]] * 15),
            "adamw_schedules": curves(*[poor] * 34, [4.0, 3.0, 2.0, 1.0, best]),
        }
        learned = {
            "candidate": np.asarray([[4.0, 1.0, 0.9]]),
            "initialisation": np.asarray([[4.0, 4.0, 4.0]]),
        }
        result = summarize_task(
            config, evaluation_task(), held_out=True, learned=learned, baselines=baselines
        )
        assert [r.optimizer for r in result.results] == ["candidate", "initialisation", "adam"]
        return [entry.is_twice_as_fast for entry in result.results]

    assert is_twice(0.95) == [True, False, None]
    assert is_twice(0.85) == [False, False, None]


def test_the_extended_normaliser_is_the_best_of_four() -> None:
    """Adam ends at 1, another of the four at 0.5 after 10 steps: what ends at 0.5 is as fast, not twice."""
    config = EvaluationConfig(
        horizon=10, points_per_horizon=2, normalizer_factor=2, num_seeds=1, normalizer="extended"
    )
    adam, other = [4.0, 2.0, 1.0, 0.9, 0.5], [4.0, 2.0, 0.5, 0.4, 0.3]
    batches = {name: curves(adam) for name in NORMALIZERS["extended"]}
    loss = np.asarray([0.5])
    assert task_normalizer(config, batches).speedup(loss) == pytest.approx(2.0)
    batches["radam"] = curves(other)
    assert task_normalizer(config, batches).speedup(loss) == pytest.approx(1.0)


def test_a_definition_of_a_speed_up_is_compared_with_itself_only() -> None:
    """What an earlier version stored has no speed-up of the mean loss, and is refused instead of misread."""
    now = summary(2.0, 1.0)
    assert now.config.model_dump()["version"] == 2
    stored = now.model_dump(mode="json")
    for task in stored["tasks"]:
        for result in task["results"]:
            result["speedups"] = result.pop("seed_speedups")
            del result["speedup"], result["redrawn_speedups"]
    with pytest.raises(ValueError, match=r"speedup\n  Field required"):
        EvaluationSummary.model_validate(stored)


def test_a_mean_is_the_same_to_the_last_bit_whatever_it_is_a_mean_of() -> None:
    """Nine seeds: NumPy adds along a contiguous axis in blocks, along another one by one."""
    curves = np.random.default_rng(0).lognormal(size=(50, 9, 4))
    final = np.ascontiguousarray(curves[:, :, 3])
    assert seed_mean(curves, axis=1)[:, 3].tolist() == seed_mean(final).tolist()
    assert np.isnan(seed_mean(np.asarray([1.0, np.nan])))


def test_what_is_not_known_to_be_held_out_counts_as_trained_on() -> None:
    known = summary(2.0, 1.0)
    unknown = EvaluationSummary(
        config=known.config, tasks=tuple(derive(task, held_out=None) for task in known.tasks)
    )
    assert known.speedups("candidate", held_out=True).finite.shape == (1, 2)
    assert unknown.speedups("candidate", held_out=True).finite.shape[0] == 0
    assert unknown.speedups("candidate", held_out=False).finite.shape == (2, 2)
