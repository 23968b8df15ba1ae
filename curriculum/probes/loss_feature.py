"""What an optimizer does with the loss that it is shown: training loss or validation loss, gradients unchanged.

[1] Metz et al. 2022, "VeLO", G.2 and Fig. 28.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from curriculum.probes.base import (
    Bench,
    Panel,
    Probe,
    ProbeResult,
    Series,
    Subject,
    default_architecture,
    names_of,
    spread_series,
)
from curriculum.probes.tasks import mlp
from curriculum.probes.training import (
    Trainer,
    learner_of,
    run_keys,
    windows,
    with_training_examples,
)
from lopt.architectures import ARCHITECTURES
from lopt.delegating_task import DelegatingTask
from lopt.family_data import Data, separate_data
from lopt.inner_loop import InnerState
from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, Dynamic, PRNGKey, Scalar, Task, TaskFamily, TaskState
from lopt.use.monitoring import step_size_monitor
from task_generator.families.images import ImageConfig
from task_generator.task_config import TaskConfig

SHOWN = ("training loss", "validation loss")


@dataclasses.dataclass(frozen=True)
class ShownLossTask(DelegatingTask):
    """The task inside, whose training shows the optimizer its loss on a fresh validation batch, or its own."""

    inner: Task
    shows_validation: jax.Array  # bool []

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns the loss to show, and the gradient of the training loss."""
        (loss, after), grads = value_and_grad(self.inner, state, key, batch)
        held_out = self.inner.batch(jax.random.fold_in(key, 5), "inner_valid")
        shown = self.inner.loss(state, key, held_out)[0]
        return (jnp.where(self.shows_validation, shown, loss), after), grads


@dataclasses.dataclass(frozen=True)
class ShownLossFamily:
    """The family inside, with such tasks."""

    inner: TaskFamily
    shows_validation: jax.Array

    def sample_dynamic(self, key: PRNGKey) -> Dynamic:
        """Draws one of the inner family's dynamic configurations."""
        return self.inner.sample_dynamic(key)

    def dynamic_axes(self) -> Dynamic:
        """Returns the inner family's axes."""
        return self.inner.dynamic_axes()

    def task(self, dynamic: Dynamic) -> Task:
        """Returns the problem."""
        return ShownLossTask(self.inner.task(dynamic), self.shows_validation)


jax.tree_util.register_dataclass(ShownLossFamily, data_fields=["inner", "shows_validation"], meta_fields=[])


class LossFeature(Probe):
    """Trains a network that overfits, showing the optimizer one loss or the other."""

    name: ClassVar[str] = "loss_feature"
    title: ClassVar[str] = "Loss-feature swap"
    question: ClassVar[str] = "Does the optimizer react to the loss that it is shown?"
    source: ClassVar[str] = "Metz et al. 2022 (VeLO), G.2, Fig. 28"
    how_to_read: ClassVar[str] = (
        "Two runs with the same gradients; only the number that the optimizer is shown as `value` differs: its "
        "training loss, or the loss on validation data. Solid lines are held-out loss, dashed ones training "
        "loss. If both runs coincide, the optimizer does not use the loss. If it uses it sensibly, the run "
        "that sees validation loss takes smaller steps (right panel) once that loss stops falling, and its "
        "held-out loss rises less: overfitting is slowed by a number alone."
    )
    deviations: ClassVar[str] = (
        "A 2×128 network on few digits instead of 2×1024 on CIFAR-10, so that it overfits in hundreds of "
        "steps. Held-out loss is measured on other data (outer validation) than those whose loss is shown."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "task": mlp(hidden_size=8, num_layers=1, batch_size=16),
        "num_examples": 32,
        "num_windows": 8,
        "window": 4,
        "num_seeds": 2,
    }

    task: TaskConfig = mlp(hidden_size=128, batch_size=32)
    num_examples: int = Field(256, ge=1)
    """Training examples: few, so that the network overfits. A power of two up to 1,024."""
    window: int = Field(10, ge=1)
    num_windows: int = Field(30, ge=2)
    num_seeds: int = Field(3, ge=1, le=100)

    def refuses(self, subject: Subject) -> str | None:
        """Returns why, for an optimizer that does not read the loss."""
        if subject.learned().reads_loss:
            return None
        reading = [name for name in ARCHITECTURES if default_architecture(name).reads_loss]
        return f"it does not read the loss; those that do: {names_of(reading)}"

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns the losses and the step sizes of both runs."""
        del bench
        if not isinstance(self.task.family, ImageConfig) or self.task.augmentations:
            raise ValueError(f"`task` must be on images, without augmentations, got {self.task.label}")
        small = with_training_examples(self.task.build(), self.num_examples, out_of=1024)
        keys = run_keys(self.seed, self.num_seeds)
        trainer = Trainer(
            learner_of(subject), num_points=self.num_windows + 1, splits=("train", "outer_valid")
        )
        families = [ShownLossFamily(small, jnp.bool_(shows_validation)) for shows_validation in (False, True)]
        step_sizes = self._step_sizes(subject, families[0])
        losses, steps, held_out, sizes = [], [], [], []
        for family, shown in zip(families, SHOWN, strict=True):
            curves = trainer(family, keys, horizon=self.window * self.num_windows)
            losses += _loss_series(shown, curves.step, curves.losses)
            held_out.append(curves.losses["outer_valid"][0])
            size = step_sizes(family, keys)
            middle = (np.arange(self.num_windows) + 0.5) * self.window
            steps.append(spread_series(f"sees {shown}", middle, size, role="category"))
            sizes.append(size)
        findings = [
            f"Shown {shown}: held-out loss {run.mean(axis=0).min():.3f} at its lowest, {run[:, -1].mean():.3f} at "
            f"the end; mean |step| over the second half {size[:, self.num_windows // 2 :].mean():.2e}."
            for shown, run, size in zip(SHOWN, held_out, sizes, strict=True)
        ]
        panels = (_losses(losses, self.num_examples), _steps(steps))
        counted = "runs with different initialisations and batches"
        return self.result(subject, panels, n=self.num_seeds, counted=counted, findings=findings, columns=2)

    def _step_sizes(
        self, subject: Subject, like: ShownLossFamily
    ) -> Callable[[ShownLossFamily, PRNGKey], np.ndarray]:
        """Returns (family, keys) → mean absolute steps over all parameters [seeds, windows]: one program for all
        families that are `like` but for their arrays.
        """
        learned, with_data = subject.learned(), separate_data(like)[1]
        num_steps = self.window * self.num_windows

        def one(data: Data, theta: Any, key: PRNGKey) -> jax.Array:
            family = with_data(data)
            dynamic_key, run_key = jax.random.split(key)
            return windows(
                family.task(family.sample_dynamic(dynamic_key)),
                step_size_monitor(learned.transform(theta, num_steps=jnp.int32(num_steps))),
                run_key,
                stride=self.window,
                num_windows=self.num_windows,
                measure=_overall_step,
            )

        program = jax.jit(jax.vmap(one, in_axes=(None, None, 0)))
        theta = jax.tree.map(jnp.asarray, subject.theta)
        return lambda family, keys: np.asarray(program(separate_data(family)[0], theta, keys), np.float64)


def _overall_step(inner: InnerState) -> Scalar:
    """Returns the mean absolute step over all parameters, whichever tensor they are in."""
    sizes = [leaf.size for leaf in jax.tree.leaves(inner.task_state.params) if leaf.size]
    shares = jnp.asarray(np.asarray(sizes) / sum(sizes), jnp.float32)
    return jnp.sum(shares * inner.optimizer_state.measured.mean_absolute_step)


def _loss_series(shown: str, step: np.ndarray, losses: dict[Any, np.ndarray]) -> list[Series]:
    return [
        spread_series(f"sees {shown} · held-out", step, losses["outer_valid"][0], role="category"),
        spread_series(f"sees {shown} · training", step, losses["train"][0], role="category", shape="dashed"),
    ]


def _losses(series: list[Series], num_examples: int) -> Panel:
    return Panel(
        title=f"Losses · {num_examples} training examples",
        x_label="inner step",
        y_label="loss",
        y_scale="log",
        series=tuple(series),
    )


def _steps(series: list[Series]) -> Panel:
    return Panel(
        title="Step sizes", x_label="inner step", y_label="mean |step|", y_scale="log", series=tuple(series)
    )
