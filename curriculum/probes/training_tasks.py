"""Meta-training on few tasks or many: how well what was learned carries over to tasks not seen.

A task here is one draw of a synthetic family (a bowl, its start), so that hundreds of them are arrays of one
compiled program, and the number of training tasks is a number in it.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute", 4.1 and Fig. 2b.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field, field_validator

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Series, Subject, spread_series
from curriculum.probes.tasks import quadratic
from curriculum.probes.training import run_keys
from lopt.estimators.full_es import FullEs, FullEsConfig
from lopt.types import Dynamic, LearnedOptimizer, PRNGKey, Scalar, Task, TaskFamily, Theta
from task_generator.task_config import TaskConfig


@dataclasses.dataclass(frozen=True)
class FewTasks:
    """A family that draws one of `count` fixed dynamic configurations of the family inside."""

    inner: TaskFamily
    key: jax.Array
    """Decides which configurations those are."""
    count: jax.Array  # int32 []

    def sample_dynamic(self, key: PRNGKey) -> Dynamic:
        """Draws one of the fixed configurations."""
        index = jax.random.randint(key, (), 0, self.count, jnp.int32)
        return self.inner.sample_dynamic(jax.random.fold_in(self.key, index))

    def dynamic_axes(self) -> Dynamic:
        """Returns the inner family's axes."""
        return self.inner.dynamic_axes()

    def task(self, dynamic: Dynamic) -> Task:
        """Returns the problem that `dynamic` selects."""
        return self.inner.task(dynamic)


jax.tree_util.register_dataclass(FewTasks, data_fields=["inner", "key", "count"], meta_fields=[])


MANY = 2**20
"""So many tasks that draws of them are practically never the same."""


def _part(key: PRNGKey, part: int) -> PRNGKey:
    """Returns a repetition's randomness: 0 for the first weights, 1 for its tasks, 2 for meta-training."""
    return jax.random.fold_in(key, part)


class TrainingTasks(Probe):
    """Meta-trains the subject's architecture from its first weights on 1, 2, 4, … tasks."""

    name: ClassVar[str] = "training_tasks"
    title: ClassVar[str] = "Meta-training against the number of training tasks"
    question: ClassVar[str] = "How many tasks does meta-training need before what it learns carries over?"
    source: ClassVar[str] = "Metz et al. 2020, 4.1, Fig. 2b"
    how_to_read: ClassVar[str] = (
        "Each point is an optimizer meta-trained from its first weights on that many tasks, and no others; the "
        "shade spans repetitions with different tasks. The dashed line is its loss on the tasks that it was "
        "trained on, the solid line on tasks that none was trained on, the same for all. With few tasks the "
        "dashed line lies below the solid one: what was learned is how to solve those tasks. Where the two "
        "meet, more tasks of this kind teach nothing new. Above the thin line, meta-training did harm on tasks "
        "not seen. This looks at the architecture: the subject's own weights are not used."
    )
    deviations: ClassVar[str] = (
        "Tasks are draws of one synthetic family instead of TaskSet's; full evolution strategies over short "
        "unrolls, hundreds of outer steps instead of 10,000; the last theta instead of a mean over outer "
        "steps."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "counts": (1, 8),
        "horizon": 5,
        "outer_steps": 4,
        "num_held_out": 4,
        "batch_tasks": 2,
        "num_pairs": 1,
        "num_seeds": 2,
    }

    task: TaskConfig = quadratic(dimension=6)
    """A family whose dynamic configurations are the tasks."""
    counts: tuple[int, ...] = Field((1, 2, 4, 8, 16, 64), min_length=2)
    """Numbers of training tasks, rising."""
    horizon: int = Field(30, ge=1)
    outer_steps: int = Field(150, ge=1)
    sigma: float = Field(0.05, gt=0)
    learning_rate: float = Field(1e-2, gt=0)
    batch_tasks: int = Field(8, ge=1)
    """Tasks per meta-gradient, drawn from the training tasks with replacement."""
    num_pairs: int = Field(4, ge=1)
    num_held_out: int = Field(256, ge=1)
    num_seeds: int = Field(4, ge=1, le=100)
    """Repetitions, each with other training tasks."""

    @field_validator("counts")
    @classmethod
    def _check_counts(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        if list(counts) != sorted(set(counts)) or counts[0] < 1:
            raise ValueError(f"`counts` must rise from at least 1, got {counts}")
        return counts

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns both losses against the number of training tasks, and the untrained optimizer's."""
        del bench
        learned, family = subject.learned(), self.task.build()
        keys, unseen_key = run_keys(self.seed, self.num_seeds), run_keys(self.seed, self.num_seeds + 1)[-1]
        meta_train = jax.jit(jax.vmap(self._meta_train(learned, family), in_axes=(0, None)))
        measure = jax.jit(jax.vmap(self._measure(learned, family), in_axes=(0, 0, None, None)))

        def losses(thetas: Theta, tasks: PRNGKey, count: int) -> np.ndarray:
            return np.asarray(measure(thetas, tasks, jnp.int32(count), unseen_key), np.float64)

        own_tasks = jax.vmap(lambda key: _part(key, 1))(keys)
        unseen_tasks = jnp.stack([unseen_key] * self.num_seeds)
        first = jax.vmap(lambda key: learned.init_theta(_part(key, 0)))(keys)
        before = float(losses(first, unseen_tasks, MANY).mean())
        found = []
        for count in self.counts:
            thetas = meta_train(keys, jnp.int32(count))
            found.append((losses(thetas, own_tasks, count), losses(thetas, unseen_tasks, MANY)))
        own = np.stack([losses[0] for losses in found], axis=1)
        unseen = np.stack([losses[1] for losses in found], axis=1)
        panel = self._panel(own, unseen, before)
        findings = [
            f"On tasks not seen: {before:.3f} before meta-training, {unseen[:, 0].mean():.3f} after it on "
            f"{self.counts[0]}, {unseen[:, -1].mean():.3f} after it on {self.counts[-1]}.",
            f"The gap between tasks not seen and own tasks falls from {(unseen - own)[:, 0].mean():.3f} to "
            f"{(unseen - own)[:, -1].mean():.3f}.",
        ]
        counted = f"meta-trainings on different tasks; losses on {self.num_held_out} draws"
        return self.result(subject, [panel], n=self.num_seeds, counted=counted, findings=findings)

    def _estimator(self, learned: LearnedOptimizer, family: TaskFamily, num_tasks: int) -> FullEs:
        config = FullEsConfig(
            sigma=self.sigma,
            min_horizon=self.horizon,
            max_horizon=self.horizon,
            num_tasks=num_tasks,
            num_pairs=self.num_pairs if num_tasks == self.batch_tasks else 1,
            aggregate="mean",
            meta_loss_scale="linear",
        )
        return config.build(family, learned)

    def _meta_train(
        self, learned: LearnedOptimizer, family: TaskFamily
    ) -> Callable[[PRNGKey, Scalar], Theta]:
        """Returns (a repetition's key, number of tasks) → theta after meta-training on them."""
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(self.learning_rate))

        def meta_train(key: PRNGKey, count: Scalar) -> Theta:
            few = FewTasks(family, _part(key, 1), count)
            estimator = self._estimator(learned, few, self.batch_tasks)

            def outer_step(carry: tuple[Theta, Any], index: Scalar) -> tuple[tuple[Theta, Any], None]:
                theta, state = carry
                step_key = jax.random.fold_in(_part(key, 2), index)
                updates, state = optimizer.update(estimator.estimate(theta, (), step_key)[0].mean, state)
                return (optax.apply_updates(theta, updates), state), None

            first = learned.init_theta(_part(key, 0))
            steps = jnp.arange(self.outer_steps, dtype=jnp.int32)
            return jax.lax.scan(outer_step, (first, optimizer.init(first)), steps)[0][0]

        return meta_train

    def _measure(
        self, learned: LearnedOptimizer, family: TaskFamily
    ) -> Callable[[Theta, PRNGKey, Scalar, PRNGKey], Scalar]:
        """Returns (theta, which tasks, how many, key) → theta's meta-loss on draws of them."""

        def measure(theta: Theta, tasks: PRNGKey, count: Scalar, key: PRNGKey) -> Scalar:
            few = FewTasks(family, tasks, count)
            estimator = self._estimator(learned, few, self.num_held_out)
            return estimator.measure(theta, key, jnp.float32(0.0)).meta_loss

        return measure

    def _panel(self, own: np.ndarray, unseen: np.ndarray, before: float) -> Panel:
        edges = (float(self.counts[0]), float(self.counts[-1]))
        return Panel(
            title=f"{self.task.family.label()} · {self.outer_steps} outer steps",
            x_label="training tasks",
            y_label="normalised loss, mean over the run",
            x_scale="log",
            y_scale="log",
            series=(
                spread_series("tasks not seen", self.counts, unseen, marked=True),
                spread_series(
                    "own training tasks", self.counts, own, role="other", shape="dashed", marked=True
                ),
                Series(
                    name="not seen, before", role="reference", x=edges, y=(before, before), n=self.num_seeds
                ),
            ),
        )
