"""What probes share: training a task with many settings and seeds in one program, and watching a run in windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from curriculum.evaluation.speedup import tuned_index
from curriculum.probes.base import Subject
from curriculum.worker import key_from_seed
from lopt.baselines import BASELINES
from lopt.family_data import Data, separate_data
from lopt.inner_loop import EvalParams, InnerState, LearningCurve, init_inner, inner_step, train_curve
from lopt.registry import lookup
from lopt.types import PRNGKey, PyTree, Scalar, Split, Task, TaskFamily
from task_generator.datasets.images import ImageSplit

PROBE_STREAM = 8_888
"""First number of every probe's seeds: apart from meta-training's and evaluation's streams."""


class Learner(NamedTuple):
    """One optimizer with H settings: a theta, or the learning rates to tune over."""

    name: str
    transform: Callable[[Any, Scalar], optax.GradientTransformationExtraArgs]
    """(setting, number of steps) → transformation."""
    settings: PyTree
    """Leaves [H, …]."""
    rates: tuple[float, ...] = ()
    """Learning rates, for what has them."""
    eval_params: EvalParams | None = None


class Curves(NamedTuple):
    """H settings × S seeds × P points, as NumPy."""

    step: np.ndarray  # [P]
    losses: dict[str, np.ndarray]  # split → [H, S, P]

    def best(self, split: Split = "train", point: int = -1) -> int:
        """Returns the setting with the lowest mean loss at a point; what diverged never wins."""
        return tuned_index(self.losses[split], point)


def learner_of(subject: Subject) -> Learner:
    """Returns the learned optimizer as a learner with one setting, its theta."""
    learned = subject.learned()
    stacked = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32)[None], subject.theta)
    return Learner(subject.label, lambda theta, horizon: learned.transform(theta, num_steps=horizon), stacked)


def tuned(name: str, rates: Sequence[float]) -> Learner:
    """Returns a baseline at several learning rates."""
    baseline = lookup(BASELINES, name, kind="baseline")
    return Learner(
        baseline.label.removeprefix("tuned "),  # whether it is, a probe says
        baseline.factory,
        jnp.asarray(rates, jnp.float32),
        tuple(rates),
        baseline.eval_params,
    )


def run_keys(seed: int, num_seeds: int) -> PRNGKey:
    """Returns a key per run: runs with the same seed and number share all randomness."""
    return jnp.stack([key_from_seed((PROBE_STREAM, seed, index)) for index in range(num_seeds)])


class Trainer:
    """Trains tasks of one family with a learner; compiled once, for every horizon and every size of the data.

    Args:
      learner: What trains.
      num_points: P, the initialisation and the end included. At least 2.
      splits: What is evaluated.
      num_eval_batches: Batches per point and split.
    """

    def __init__(
        self, learner: Learner, *, num_points: int, splits: tuple[Split, ...], num_eval_batches: int = 4
    ) -> None:
        self.learner = learner
        self.num_points = num_points
        self.splits = splits
        self.num_eval_batches = num_eval_batches
        self._programs: dict[Any, Callable[..., LearningCurve]] = {}

    def __call__(self, family: TaskFamily, keys: PRNGKey, *, horizon: int) -> Curves:
        """Returns the curves of runs that are told `horizon` steps, and make that many.

        Raises:
          ValueError: If the points do not divide the horizon.
        """
        stride, rest = divmod(horizon, self.num_points - 1)
        if rest:
            raise ValueError(
                f"the number of steps must be a multiple of the {self.num_points - 1} intervals between points, "
                f"got {horizon}"
            )
        data, with_data = separate_data(family)
        # Families that differ only in their arrays share a program; one that is no pytree is a leaf of its own.
        leaves, structure = jax.tree.flatten(family)
        static = (structure, tuple(id(leaf) for leaf in leaves if not isinstance(leaf, jax.Array)))
        if static not in self._programs:
            self._programs[static] = jax.jit(self._over_runs(with_data))
        program = self._programs[static]
        curve = jax.device_get(
            program(data, self.learner.settings, keys, jnp.int32(horizon), jnp.int32(stride))
        )
        losses = {split: np.asarray(values, np.float64) for split, values in curve.losses.items()}
        return Curves(np.asarray(curve.step[0, 0]), losses)

    def _over_runs(self, with_data: Callable[[Data], TaskFamily]) -> Callable[..., LearningCurve]:
        def one(data: Data, setting: Any, key: PRNGKey, horizon: Scalar, stride: Scalar) -> LearningCurve:
            family = with_data(data)
            dynamic_key, run_key = jax.random.split(key)
            return train_curve(
                family.task(family.sample_dynamic(dynamic_key)),
                self.learner.transform(setting, horizon),
                run_key,
                eval_every=stride,
                num_points=self.num_points,
                splits=self.splits,
                num_eval_batches=self.num_eval_batches,
                eval_params=self.learner.eval_params,
            )

        over_seeds = jax.vmap(one, in_axes=(None, None, 0, None, None))
        return jax.vmap(over_seeds, in_axes=(None, 0, None, None, None))


def windows(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    key: PRNGKey,
    *,
    stride: int,
    num_windows: int,
    measure: Callable[[InnerState], PyTree],
    mean: bool = True,
) -> PyTree:
    """Trains from scratch and returns what `measure` says of the state after each step, window by window.

    Args:
      task: What to train.
      optimizer: With what; `num_windows · stride` updates.
      key: Decides everything random.
      stride: Steps per window.
      num_windows: W.
      measure: Of the state after a step: a tree of float32 arrays.
      mean: The mean over each window's steps; otherwise what it says at each window's end.

    Returns:
      The tree, leaves [W, …].
    """
    init_key, train_key = jax.random.split(key)

    def step(carry: tuple[InnerState, PyTree], index: Scalar) -> tuple[tuple[InnerState, PyTree], None]:
        inner, total = carry
        inner, _ = inner_step(task, optimizer, inner, jax.random.fold_in(train_key, index))
        now = measure(inner)
        return (inner, jax.tree.map(lambda a, b: a + b / stride, total, now) if mean else now), None

    def window(inner: InnerState, first: Scalar) -> tuple[InnerState, PyTree]:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(measure, inner))
        (inner, out), _ = jax.lax.scan(step, (inner, zeros), first + jnp.arange(stride, dtype=jnp.int32))
        return inner, out

    state = init_inner(task, optimizer, init_key)
    starts = jnp.arange(num_windows, dtype=jnp.int32) * stride
    return jax.lax.scan(window, state, starts)[1]


def with_training_examples(family: Any, count: int, *, out_of: int) -> Any:
    """Returns a family of an image task that trains on the first `count` examples.

    They are repeated up to `out_of`, a multiple, so that every count has the same shapes, and so the same program.

    Raises:
      ValueError: If `count` does not divide `out_of`, or there are fewer examples than that.
    """
    available = family.data.train.labels.shape[0]
    if count < 1 or out_of % count or out_of > available:
        raise ValueError(
            f"the number of training examples must divide {out_of}, of which the data must have as many; "
            f"got {count}, and {available} examples"
        )
    index = jnp.arange(out_of, dtype=jnp.int32) % count
    train = ImageSplit(family.data.train.images[index], family.data.train.labels[index])
    return dataclasses.replace(family, data=dataclasses.replace(family.data, train=train))


def final_losses(curves: Curves, split: Split = "train") -> tuple[np.ndarray, int]:
    """Returns the last losses [S] of the best setting, and which it is."""
    best = curves.best(split)
    return curves.losses[split][best, :, -1], best
