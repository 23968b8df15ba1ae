"""What an unroll's losses come to, against hand-worked numbers; what a task's losses are made into."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lopt.fitness import unit_norm, utilities
from lopt.inner_loop import init_inner
from lopt.objective import LOG_OFFSET, ObjectiveConfig, bounded, meta_loss, run_window, start_trace
from lopt.types import Split, TaskState
from tests.support.learned_rate import Curvature, QuadraticTask

STEPS, RATE = 4, 0.5


class SplitTask(QuadraticTask):
    """The loss of a validation split is larger by a constant: 1 on inner_valid, 2 on outer_valid."""

    def batch(self, key: jax.Array, split: Split = "train") -> jax.Array:
        return jnp.float32({"train": 0.0, "inner_valid": 1.0, "outer_valid": 2.0, "test": 3.0}[split])

    def loss(self, state: TaskState, key: jax.Array, batch: jax.Array) -> tuple[jax.Array, TaskState]:
        value, state = super().loss(state, key, batch)
        return value + batch, state


def measured(steps: int = STEPS, **fields: Any) -> float:
    objective = ObjectiveConfig(**{"meta_loss_scale": "linear", **fields})
    task, key = SplitTask(Curvature(jnp.float32(1.0), jnp.float32(1.0))), jax.random.key(0)
    optimizer = optax.with_extra_args_support(optax.sgd(RATE))
    inner = init_inner(task, optimizer, key)
    trace = start_trace(task, inner, key, objective)
    inner, trace = run_window(task, optimizer, inner, trace, key, start=0, stop=steps, objective=objective)
    return float(meta_loss(task, inner, trace, key, num_steps=steps, objective=objective))


LOSSES = 0.5 * 0.25 ** np.arange(STEPS + 1)  # ½ x², x halved by every step


@pytest.mark.parametrize(("split", "more"), [("train", 0.0), ("inner_valid", 1.0), ("outer_valid", 2.0)])
def test_final_mean_and_lowest_loss_of_every_split(split: str, more: float) -> None:
    assert measured(split=split) == pytest.approx(LOSSES[-1] + more)
    assert measured(aggregate="mean", split=split) == pytest.approx(LOSSES[:-1].mean() + more)
    assert measured(aggregate="min", split=split) == pytest.approx(LOSSES[-2] + more)


def test_logarithms() -> None:
    logs = np.log(LOSSES + LOG_OFFSET)
    assert measured(meta_loss_scale="log") == pytest.approx(logs[-1], rel=1e-5)
    assert measured(aggregate="mean", meta_loss_scale="log") == pytest.approx(logs[:-1].mean(), rel=1e-5)
    relative = measured(aggregate="log_mean", meta_loss_scale="log")
    assert relative == pytest.approx((logs[:-1] - logs[0]).mean(), rel=1e-5)


def test_relative_to_a_baseline() -> None:
    """Zero where the baseline came to, one at the start, below zero for what is better."""
    fields = {"meta_loss_scale": "baseline", "baseline_loss": float(LOSSES[2])}
    assert measured(2, **fields) == pytest.approx(0.0, abs=1e-6)
    assert measured(0, **fields) == pytest.approx(1.0)
    assert measured(4, **fields) == pytest.approx((LOSSES[4] - LOSSES[2]) / (LOSSES[0] - LOSSES[2]), rel=1e-5)
    assert (
        measured(2, meta_loss_scale="baseline", baseline_loss=0.5) == -10.0
    )  # a baseline that learned nothing


def test_a_baseline_that_nobody_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="needs `baseline_loss`"):
        measured(meta_loss_scale="baseline")


class NoisyTask(QuadraticTask):
    """Its validation loss is a standard normal number."""

    def batch(self, key: jax.Array, split: Split = "train") -> jax.Array:
        return jnp.float32(0.0) if split == "train" else jax.random.normal(key)

    def loss(self, state: TaskState, key: jax.Array, batch: jax.Array) -> tuple[jax.Array, TaskState]:
        return batch, state


@pytest.mark.parametrize("num_step_batches", [1, 5])
def test_the_loss_of_a_step_is_averaged_over_fresh_batches(num_step_batches: int) -> None:
    objective = ObjectiveConfig(
        aggregate="mean", split="outer_valid", num_step_batches=num_step_batches, meta_loss_scale="linear"
    )
    task = NoisyTask(Curvature(jnp.float32(1.0), jnp.float32(1.0)))
    optimizer = optax.with_extra_args_support(optax.sgd(RATE))

    def total(key: jax.Array) -> jax.Array:
        inner = init_inner(task, optimizer, key)
        trace = start_trace(task, inner, key, objective)
        return run_window(task, optimizer, inner, trace, key, start=0, stop=1, objective=objective)[1].total

    losses = jax.vmap(total)(jax.random.split(jax.random.key(0), 4000))
    # The variance of a sample of 4 000 has a relative standard error of √(2 / 4 000) = 2.2 %.
    assert float(jnp.var(losses)) == pytest.approx(1 / num_step_batches, rel=0.09)


def test_divergence_is_the_cap() -> None:
    for value in (jnp.inf, jnp.nan, 1e30):
        assert float(bounded(jnp.float32(value), cap=10.0)) == 10.0
    assert float(bounded(jnp.float32(-1e30), cap=10.0)) == -10.0


def test_utilities_hand_worked() -> None:
    losses = jnp.asarray([[1.0, 3.0], [5.0, 5.0]])
    np.testing.assert_array_equal(utilities(losses, "none"), losses)
    np.testing.assert_array_equal(utilities(losses, "unit_norm"), losses)
    np.testing.assert_array_equal(utilities(losses, "sign"), [[-0.5, 0.5], [0.0, 0.0]])
    np.testing.assert_allclose(utilities(losses, "rank"), [[-0.5, 1 / 3 - 0.5], [1 / 3, 1 / 3]], rtol=1e-6)
    shaped = utilities(losses, "standardized")
    np.testing.assert_allclose(shaped, (np.asarray(losses) - 3.5) / np.std([1.0, 3.0, 5.0, 5.0]), rtol=1e-6)
    assert float(jnp.abs(utilities(jnp.ones((2, 2)), "standardized")).max()) == 0.0


def test_unit_norm_leaves_zero_alone() -> None:
    assert float(unit_norm({"a": jnp.asarray([3.0, 4.0])})["a"][1]) == pytest.approx(0.8)
    np.testing.assert_array_equal(unit_norm({"a": jnp.zeros(2)})["a"], [0.0, 0.0])
