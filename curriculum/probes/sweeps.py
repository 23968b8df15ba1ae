"""Generalisation along single axes of a task: width, batch size, number of training examples.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute", 4.4 and Fig. 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Series, Subject, floats
from curriculum.probes.tasks import mlp
from curriculum.probes.training import Learner, Trainer, learner_of, run_keys, tuned, with_training_examples
from lopt.types import PRNGKey, TaskFamily

MAX_EXAMPLES = 1024
"""Of the digits' 1,078 training examples: a power of two, which every smaller one divides."""


class Sweeps(Probe):
    """Varies one property of a small classifier at a time, against Adam at every learning rate."""

    name: ClassVar[str] = "sweeps"
    title: ClassVar[str] = "Width, batch-size and data-size sweeps"
    question: ClassVar[str] = "How far from a usual small task does the optimizer still work?"
    source: ClassVar[str] = "Metz et al. 2020, 4.4, Fig. 5"
    how_to_read: ClassVar[str] = (
        "Test loss, averaged over the whole run, as one property of the task changes. Thin lines are Adam, one "
        "per learning rate from low (dark) to high (bright); their lower envelope is what tuning the rate at "
        "every point would give. The thick line is the learned optimizer, untuned. It generalises along an "
        "axis as far as it stays at or below that envelope; a line that leaves it towards one side shows where "
        "the task has become too different from those that it was meta-trained on."
    )
    deviations: ClassVar[str] = (
        "Digits instead of MNIST and CIFAR-10, hundreds of steps instead of 10,000. As in the paper: the "
        "median over initialisations, bars one standard deviation. The outer-training range is not marked: a "
        "file of weights does not say what it was."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "widths": (4, 8),
        "batch_sizes": (8, 16),
        "data_sizes": (32, 1024),
        "width": 8,
        "batch_size": 16,
        "horizon": 20,
        "num_points": 3,
        "learning_rates": (1e-3, 1e-2),
        "num_seeds": 2,
    }

    width: int = Field(32, ge=1)
    """Of both hidden layers, where the width is not what varies."""
    batch_size: int = Field(128, ge=1)
    widths: tuple[int, ...] = Field((2, 8, 32, 128, 512), min_length=2)
    batch_sizes: tuple[int, ...] = Field((2, 8, 32, 128, 512), min_length=2)
    data_sizes: tuple[int, ...] = Field((16, 64, 256, 1024), min_length=2)
    """Training examples; powers of two up to 1,024."""
    horizon: int = Field(200, ge=2)
    num_points: int = Field(21, ge=2)
    """Evaluations along a run, whose mean is the number shown; one less divides the horizon."""
    learning_rates: tuple[float, ...] = Field((3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), min_length=1)
    num_seeds: int = Field(3, ge=2, le=100)

    @field_validator("data_sizes")
    @classmethod
    def _sizes_divide(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 or MAX_EXAMPLES % size for size in sizes):
            raise ValueError(f"`data_sizes` must be powers of two up to {MAX_EXAMPLES}, got {sizes}")
        return sizes

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns a panel per property."""
        del bench
        subject_trainers = _Trainers(learner_of(subject), self.num_points)
        adam_trainers = _Trainers(tuned("adam", self.learning_rates), self.num_points)
        keys = run_keys(self.seed, self.num_seeds)
        panels, findings = [], []
        for label, axis in self._axes().items():
            ours = self._losses(subject_trainers, list(axis.values()), keys)[0]
            theirs = self._losses(adam_trainers, list(axis.values()), keys)
            panels.append(_panel(label, list(axis), subject.label, ours, theirs, self.learning_rates))
            below = np.median(ours, axis=1) <= np.median(theirs, axis=2).min(axis=0)
            findings.append(
                f"{label}: at or below the best of {len(self.learning_rates)} learning rates at "
                f"{int(below.sum())} of {len(axis)} points."
            )
        counted = "runs with different initialisations and batches"
        return self.result(subject, panels, n=self.num_seeds, counted=counted, findings=findings)

    def _axes(self) -> dict[str, dict[int, tuple[TaskFamily, int]]]:
        """Returns, per property and value, the family and how many batches a loss is averaged over."""

        def of(width: int, batch_size: int) -> tuple[TaskFamily, int]:
            family = mlp(hidden_size=width, num_layers=2, batch_size=batch_size).build()
            return family, max(1024 // batch_size, 1)

        usual, batches = of(self.width, self.batch_size)
        return {
            "hidden units per layer": {w: of(w, self.batch_size) for w in self.widths},
            "batch size": {b: of(self.width, b) for b in self.batch_sizes},
            "training examples": {
                n: (with_training_examples(usual, n, out_of=MAX_EXAMPLES), batches) for n in self.data_sizes
            },
        }

    def _losses(
        self, trainers: _Trainers, families: Sequence[tuple[TaskFamily, int]], keys: PRNGKey
    ) -> np.ndarray:
        """Returns test losses averaged over each run: [settings, points of the axis, seeds]."""
        curves = [trainers.of(batches)(family, keys, horizon=self.horizon) for family, batches in families]
        return np.stack([curve.losses["test"].mean(axis=2) for curve in curves], axis=1)


class _Trainers:
    """One learner's trainers, by how many batches they evaluate on: axes share what is compiled."""

    def __init__(self, learner: Learner, num_points: int) -> None:
        self._learner = learner
        self._num_points = num_points
        self._made: dict[int, Trainer] = {}

    def of(self, num_eval_batches: int) -> Trainer:
        """Returns the trainer."""
        if num_eval_batches not in self._made:
            self._made[num_eval_batches] = Trainer(
                self._learner,
                num_points=self._num_points,
                splits=("test",),
                num_eval_batches=num_eval_batches,
            )
        return self._made[num_eval_batches]


def _panel(
    label: str,
    values: list[int],
    name: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    rates: tuple[float, ...],
) -> Panel:
    num_seeds = ours.shape[1]
    adam = [
        Series(
            name=f"Adam, rate {rate:g}",
            role="ordered",
            x=floats(values),
            y=floats(np.median(runs, axis=1)),
            n=num_seeds,
        )
        for rate, runs in zip(rates, theirs, strict=True)
    ]
    median, deviation = np.median(ours, axis=1), ours.std(axis=1, ddof=1)
    subject = Series(
        name=name,
        role="subject",
        x=floats(values),
        y=floats(median),
        low=floats(median - deviation),
        high=floats(median + deviation),
        marked=True,
        n=num_seeds,
    )
    return Panel(
        title=f"By {label}",
        x_label=label,
        y_label="mean test loss over the run",
        x_scale="log",
        y_scale="log",
        series=(*adam, subject),
    )
