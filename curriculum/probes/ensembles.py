"""The best of several learned optimizers per task: what choosing between them would gain.

[1] Metz et al. 2022, "VeLO", G.12 and Tables 2 and 4 ("LOpt Ensemble").
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from curriculum.evaluation.task_normalizer import fit_task_normalizer
from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Series, Subject, floats
from curriculum.probes.tasks import autoencoder, conv, mlp, quadratic
from curriculum.probes.training import Trainer, learner_of, run_keys, tuned
from task_generator.task_config import TaskConfig

FLOOR = 0.01
"""In geometric means, a run that learned nothing counts as a hundred times slower."""


class Ensembles(Probe):
    """Runs several optimizers on the same tasks and takes the best per task."""

    name: ClassVar[str] = "ensembles"
    title: ClassVar[str] = "Ensembles of learned optimizers"
    question: ClassVar[str] = "How much faster is the best of k optimizers per task than the best single one?"
    source: ClassVar[str] = "Metz et al. 2022 (VeLO), G.12, Tables 2 and 4"
    how_to_read: ClassVar[str] = (
        "Left, the speed-up over Adam with its rate tuned per task, geometric mean over tasks, of the best k "
        "optimizers together: each task counts with whichever member is fastest on it. The first point is the "
        "best single member; members join in the order that helps most. A rising solid line says that "
        "different optimizers are good at different tasks. It chooses with hindsight; the dashed line chooses "
        "a member per task by the other seeds only, what a user who tries k optimizers once could have. Right, "
        "the speed-ups themselves: rows that are best in different columns are what makes an ensemble pay."
    )
    deviations: ClassVar[str] = (
        "Few small tasks and the optimizers at hand instead of 83 tasks and 76 optimizers; geometric instead "
        "of arithmetic means, which one fast task would dominate; the choice without hindsight is ours."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "tasks": (quadratic(dimension=4), quadratic(dimension=6)),
        "horizon": 20,
        "learning_rates": (1e-3, 1e-2, 1e-1),
        "num_seeds": 2,
    }

    tasks: tuple[TaskConfig, ...] = Field(
        (mlp(), mlp(hidden_size=16, num_layers=1, batch_size=16), conv(), autoencoder(), quadratic()),
        min_length=1,
    )
    horizon: int = Field(200, ge=20, multiple_of=20)
    normalizer_factor: int = Field(5, ge=1)
    """Adam runs this many times longer: the largest speed-up that can be seen."""
    learning_rates: tuple[float, ...] = Field((1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1), min_length=1)
    num_seeds: int = Field(3, ge=2, le=100)

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns ensembles of rising size, and every member's speed-up on every task."""
        members = (subject, *bench.others)
        if len(members) < 2:
            raise ValueError(
                "an ensemble needs at least two optimizers, got one; name others (`--with REFERENCE` on the "
                "command line)"
            )
        scores = np.stack([self._speedups(members, task) for task in self.tasks])  # [tasks, members, seeds]
        means = np.maximum(scores.mean(axis=2), FLOOR)
        order = greedy_order(means)
        names = [member.label for member in members]
        sizes = range(1, len(members) + 1)
        hindsight = [_geometric(means[:, order[:k]].max(axis=1)) for k in sizes]
        without = [_geometric(chosen_blindly(scores[:, order[:k]])) for k in sizes]
        panels = (
            _sizes_panel([names[i] for i in order], hindsight, without, len(self.tasks)),
            _members_panel(names, [task.family.family for task in self.tasks], means),
        )
        findings = [
            f"Best single member: {names[order[0]]}, {hindsight[0]:.2f} × (geometric mean over "
            f"{len(self.tasks)} tasks).",
            f"Best of {len(members)} per task: {hindsight[-1]:.2f} × with hindsight, {without[-1]:.2f} × chosen by "
            "other seeds.",
        ]
        counted = f"tasks, each with {self.num_seeds} runs"
        return self.result(subject, panels, n=len(self.tasks), counted=counted, findings=findings, columns=2)

    def _speedups(self, members: tuple[Subject, ...], task: TaskConfig) -> np.ndarray:
        """Returns the speed-ups over tuned Adam with the same seed: [members, seeds]."""
        family, keys = task.build(), run_keys(self.seed, self.num_seeds)
        adam = Trainer(
            tuned("adam", self.learning_rates),
            num_points=20 * self.normalizer_factor + 1,
            splits=("train",),
        )(family, keys, horizon=self.horizon * self.normalizer_factor)
        normalizer = fit_task_normalizer(adam.step, adam.losses["train"], self.horizon)
        rows = []
        for member in members:
            trainer = Trainer(learner_of(member), num_points=2, splits=("train",))
            losses = trainer(family, keys, horizon=self.horizon).losses["train"][0, :, -1]
            rows.append(normalizer.by_seed(losses))
        return np.stack(rows)


def greedy_order(means: np.ndarray) -> list[int]:
    """Returns members by how much each adds to those before it; means are [tasks, members], positive."""
    order: list[int] = []
    while len(order) < means.shape[1]:
        rest = [i for i in range(means.shape[1]) if i not in order]
        gains = [_geometric(means[:, [*order, i]].max(axis=1)) for i in rest]
        order.append(rest[int(np.argmax(gains))])
    return order


def chosen_blindly(scores: np.ndarray) -> np.ndarray:
    """Returns, per task, the mean over seeds of the member chosen by the other seeds: [tasks].

    Args:
      scores: [tasks, members, seeds], at least two seeds.
    """
    total = scores.sum(axis=2, keepdims=True)
    chosen = np.argmax(total - scores, axis=1)  # [tasks, seeds]: by all seeds but the one
    own = np.take_along_axis(scores, chosen[:, None, :], axis=1)[:, 0]
    return np.maximum(own.mean(axis=1), FLOOR)


def _geometric(values: np.ndarray) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _sizes_panel(names: list[str], hindsight: list[float], without: list[float], num_tasks: int) -> Panel:
    sizes = floats(range(1, len(names) + 1))
    joined = " → ".join(names) if len(" → ".join(names)) < 60 else f"{names[0]} first"
    return Panel(
        title=f"Best of k · {joined}",
        x_label="members, k",
        y_label="speed-up over tuned Adam",
        series=(
            Series(
                name="best per task, with hindsight", x=sizes, y=floats(hindsight), marked=True, n=num_tasks
            ),
            Series(
                name="chosen by other seeds",
                role="other",
                shape="dashed",
                x=sizes,
                y=floats(without),
                marked=True,
                n=num_tasks,
            ),
            Series(name="tuned Adam", role="reference", x=(sizes[0], sizes[-1]), y=(1.0, 1.0), n=num_tasks),
        ),
    )


def _members_panel(names: list[str], tasks: list[str], means: np.ndarray) -> Panel:
    return Panel(
        title="Every member on every task",
        kind="table",
        x_label="task",
        y_label="",
        colour_label="speed-up over tuned Adam",
        rows=tuple(names),
        columns=tuple(f"{i + 1} {task}" for i, task in enumerate(tasks)),
        values=tuple(floats(column) for column in means.T),
    )
