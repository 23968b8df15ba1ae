"""Larger batches and proportionally fewer steps: how long an optimizer makes use of them.

[1] Metz et al. 2022, "VeLO", 5.2, G.9, Figs. 14 and 37.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Subject
from curriculum.probes.scaling import Point, scaling_series, wins
from curriculum.probes.tasks import mlp
from curriculum.probes.training import learner_of, run_keys, tuned
from lopt.config import derive
from task_generator.task_config import TaskConfig

_EVALUATED = 4096
"""Examples that a final loss is averaged over, whatever the batch."""


class BatchSize(Probe):
    """Trains on the same number of examples, in batches of different sizes."""

    name: ClassVar[str] = "batch_size"
    title: ClassVar[str] = "Batch-size scaling with equal examples"
    question: ClassVar[str] = "Up to which batch size do fewer, larger batches cost nothing?"
    source: ClassVar[str] = "Metz et al. 2022 (VeLO), 5.2 and G.9, Figs. 14 and 37"
    how_to_read: ClassVar[str] = (
        "Every point has seen the same number of examples: twice the batch, half the steps. Where a line is "
        "flat, larger batches are free; where it turns up, the critical batch size has been passed and too few "
        "steps are left. Compare where the lines turn, not only how low they are: an optimizer with a larger "
        "critical batch size can use more devices. Baselines have their learning rate tuned at every point, "
        "the learned optimizer nothing."
    )
    deviations: ClassVar[str] = (
        "One small task instead of six, fewer examples; the paper's third baseline, SGD without momentum, is "
        "left out; ranges over seeds, which the paper doesn't show."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "task": mlp(hidden_size=8, num_layers=1, batch_size=16),
        "batch_sizes": (16, 64),
        "num_examples": 256,
        "baselines": ("adam",),
        "learning_rates": (1e-3, 1e-2),
        "num_seeds": 2,
    }

    task: TaskConfig = mlp(num_layers=1)
    batch_sizes: tuple[int, ...] = Field((8, 32, 128, 512, 2048), min_length=2)
    num_examples: int = Field(2**15, ge=1)
    """Seen by every run."""
    baselines: tuple[str, ...] = Field(("adam", "sgdm"), min_length=1)
    learning_rates: tuple[float, ...] = Field((3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), min_length=1)
    num_seeds: int = Field(3, ge=1, le=100)

    @model_validator(mode="after")
    def _steps_are_whole(self) -> Self:
        for size in self.batch_sizes:
            if self.num_examples % size:
                raise ValueError(
                    f"`num_examples` must be a multiple of every batch size, got {self.num_examples} and {size}"
                )
        if not hasattr(self.task.family, "batch_size"):
            raise ValueError(f"`task` must have batches, got {self.task.label}")
        return self

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns final losses against the batch size."""
        del bench
        learners = (learner_of(subject), *(tuned(name, self.learning_rates) for name in self.baselines))
        points = [self._point(size) for size in self.batch_sizes]
        series = scaling_series(points, learners, run_keys(self.seed, self.num_seeds))
        panel = Panel(
            title=f"{self.task.family.family} · {self.num_examples:,} examples each",
            x_label="batch size",
            y_label="final training loss",
            x_scale="log",
            y_scale="log",
            series=series,
        )
        findings = [
            f"Lowest of all at {wins(series)} of {len(points)} batch sizes.",
            *(
                f"{s.name}: {s.y[-1] / s.y[0]:.2g} × the loss from batch {self.batch_sizes[0]} "
                f"({points[0].horizon} steps) to {self.batch_sizes[-1]} ({points[-1].horizon} steps)."
                for s in series
            ),
        ]
        counted = "runs with different initialisations and batches"
        return self.result(subject, [panel], n=self.num_seeds, counted=counted, findings=findings)

    def _point(self, size: int) -> Point:
        family = derive(self.task.family, batch_size=size)
        task = derive(self.task, family=family.model_dump())
        return Point(float(size), task, self.num_examples // size, max(_EVALUATED // size, 1))
