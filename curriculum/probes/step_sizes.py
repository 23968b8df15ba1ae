"""The sizes of an optimizer's steps, tensor by tensor, over a run.

[1] Metz et al. 2022, "VeLO", 5.1.1, G.3, Figs. 13 and 29.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Series, Subject, floats
from curriculum.probes.tasks import conv, mlp, quadratic, transformer
from curriculum.probes.training import Learner, learner_of, run_keys, tuned, windows
from lopt.family_data import Data, separate_data
from lopt.types import PRNGKey
from lopt.use.monitoring import step_size_monitor, tensor_names
from task_generator.task_config import TaskConfig


class StepSizes(Probe):
    """Watches the mean absolute step of every tensor, with Adam's beside it."""

    name: ClassVar[str] = "step_sizes"
    title: ClassVar[str] = "Step sizes per tensor"
    question: ClassVar[str] = "What schedule of step sizes has the optimizer learned, and for which tensors?"
    source: ClassVar[str] = "Metz et al. 2022 (VeLO), 5.1.1 and G.3, Figs. 13 and 29"
    how_to_read: ClassVar[str] = (
        "One line per parameter tensor, coloured in the order of their names (in a plain network from the first "
        "layer, dark, to the last, bright); matrices solid, vectors (biases, norms) dashed. The top row is the "
        "optimizer, the bottom row, on the same scale, Adam with a constant learning rate on the same tasks: its "
        "lines change little and lie close together, because its normaliser makes all steps about the rate. Look "
        "for a rise at the start (a warm-up), a fall towards the end (a decay), and for how many decades lie "
        "between tensors: what a hand-made schedule, one number for all, cannot express."
    )
    deviations: ClassVar[str] = (
        "Digits and English bytes instead of CIFAR-10 and LM1B, smaller networks; steps are averaged over "
        "windows of the run, and over seeds; Adam only, not SGD with momentum."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "tasks": (quadratic(dimension=4),),
        "num_windows": 8,
        "window": 4,
        "num_seeds": 2,
    }

    tasks: tuple[TaskConfig, ...] = Field((mlp(num_layers=3), conv(), transformer()), min_length=1)
    window: int = Field(10, ge=1)
    """Steps that a point averages over."""
    num_windows: int = Field(50, ge=2)
    adam_rate: float = Field(1e-3, gt=0)
    num_seeds: int = Field(3, ge=1, le=100)

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns a panel per optimizer and task."""
        del bench
        learners = (learner_of(subject), tuned("adam", (self.adam_rate,)))
        found = [[self._steps(learner, task) for task in self.tasks] for learner in learners]
        labels = (subject.label, f"{learners[1].name}, rate {self.adam_rate:g}")
        panels = []
        for row, label in enumerate(labels):
            for column, task in enumerate(self.tasks):
                # The same scale for both optimizers: how flat Adam's lines are is what there is to see.
                both = np.concatenate([steps[column][2].ravel() for steps in found])
                title = f"{label} · {task.family.family}"
                panels.append(self._panel(title, *found[row][column], y_range=_positive_range(both)))
        findings = [_finding(t.family.family, s[2]) for t, s in zip(self.tasks, found[0], strict=True)]
        counted = "runs with different initialisations and batches"
        return self.result(
            subject, panels, n=self.num_seeds, counted=counted, findings=findings, columns=len(self.tasks)
        )

    def _steps(self, learner: Learner, task: TaskConfig) -> tuple[list[str], list[int], np.ndarray]:
        """Returns the tensors' names and ranks, and their mean absolute steps [windows, tensors]."""
        family = task.build()
        data, with_data = separate_data(family)
        num_steps = self.window * self.num_windows

        def one(data: Data, key: PRNGKey) -> jax.Array:
            family = with_data(data)
            dynamic_key, run_key = jax.random.split(key)
            setting = jax.tree.map(lambda x: x[0], learner.settings)
            optimizer = step_size_monitor(learner.transform(setting, jnp.int32(num_steps)))
            return windows(
                family.task(family.sample_dynamic(dynamic_key)),
                optimizer,
                run_key,
                stride=self.window,
                num_windows=self.num_windows,
                measure=lambda inner: inner.optimizer_state.measured.mean_absolute_step,
            )

        keys = run_keys(self.seed, self.num_seeds)
        steps = np.asarray(jax.jit(jax.vmap(one, in_axes=(None, 0)))(data, keys), np.float64)
        shapes = jax.eval_shape(lambda key: family.task(family.sample_dynamic(key)).init(key), keys[0]).params
        params = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
        ranks = [len(leaf.shape) for leaf in jax.tree.leaves(params) if leaf.size]
        return tensor_names(params), ranks, steps.mean(axis=0)

    def _panel(
        self,
        title: str,
        names: list[str],
        ranks: list[int],
        steps: np.ndarray,
        *,
        y_range: tuple[float, float] | None,
    ) -> Panel:
        middle = (np.arange(self.num_windows) + 0.5) * self.window
        series = [
            Series(
                name=name,
                role="ordered",
                x=floats(middle),
                y=floats(steps[:, tensor]),
                shape="solid" if ranks[tensor] > 1 else "dashed",
                n=self.num_seeds,
            )
            for tensor, name in enumerate(names)
        ]
        return Panel(
            title=title,
            x_label="inner step",
            y_label="mean |step|",
            y_scale="log",
            y_range=y_range,
            series=tuple(series),
        )


def _positive_range(values: np.ndarray) -> tuple[float, float] | None:
    """Returns the least and the greatest positive number, a little apart from the axes' ends; None without any."""
    positive = values[np.isfinite(values) & (values > 0)]
    return (float(positive.min()) / 1.3, float(positive.max()) * 1.3) if positive.size else None


def _finding(task: str, steps: np.ndarray) -> str:
    """Returns how far tensors lie apart, and how steps change from their largest to the end."""
    moving = steps[:, np.all(steps > 0, axis=0)]
    if not moving.size:
        return f"{task}: no tensor moves all along."
    middle = np.median(moving, axis=0)
    decades = np.log10(middle.max() / middle.min())
    course = np.exp(np.log(moving).mean(axis=1))
    return (
        f"{task}: tensors' median steps lie {decades:.1f} decades apart; over the run the typical step peaks at "
        f"{100 * np.argmax(course) / (len(course) - 1):.0f} % and ends at {course[-1] / course.max():.2g} of that."
    )
