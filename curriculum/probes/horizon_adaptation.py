"""Whether an optimizer uses what it is told about the length of the run.

[1] Metz et al. 2022, "VeLO", 5.1 and Fig. 12.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Series, Subject, spread_series
from curriculum.probes.tasks import autoencoder, conv, quadratic
from curriculum.probes.training import Curves, Trainer, learner_of, run_keys
from task_generator.task_config import TaskConfig

SOLVED = 1e-9
"""Losses below this are all alike: float32 reaches zero on tasks that can be solved."""


class HorizonAdaptation(Probe):
    """Trains the same tasks for several lengths, each told."""

    name: ClassVar[str] = "horizon_adaptation"
    title: ClassVar[str] = "Horizon adaptation"
    question: ClassVar[str] = "Does the optimizer plan its run around the number of steps that it is told?"
    source: ClassVar[str] = "Metz et al. 2022 (VeLO), 5.1, Fig. 12"
    how_to_read: ClassVar[str] = (
        "Each line is the same task, told another number of steps; it ends where that run ends. An optimizer "
        "that plans stays above the shorter runs' lines for most of its run and drops towards its own end. One "
        "that ignores the number traces one and the same line, whatever its length. The last panel puts a "
        "number on it: the loss at step T of the run that was told T, over that of the longest run at the same "
        "step. Below 1, knowing the end paid; at 1 it made no difference; above 1 it did harm."
    )
    deviations: ClassVar[str] = (
        "A fully connected auto-encoder and a ConvNet on digits, and hundreds of steps, instead of CIFAR-10 and 1K "
        "to 10K (a classifier of digits is solved before its run ends); means over seeds with their range; the "
        "ratio panel is ours."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "tasks": (quadratic(dimension=4),),
        "horizons": (16, 64),
        "num_points": 9,
        "num_seeds": 2,
    }

    tasks: tuple[TaskConfig, ...] = Field((autoencoder(), conv()), min_length=1, max_length=4)
    horizons: tuple[int, ...] = Field((100, 200, 400, 800, 1600), min_length=2)
    """Lengths that runs are told, rising."""
    num_points: int = Field(51, ge=3, le=1001)
    """Evaluations along each run, its start included; one less divides every length."""
    num_seeds: int = Field(3, ge=1, le=100)

    @field_validator("horizons")
    @classmethod
    def _check_rising(cls, horizons: tuple[int, ...]) -> tuple[int, ...]:
        if list(horizons) != sorted(set(horizons)) or horizons[0] < 2:
            raise ValueError(f"`horizons` must rise from at least 2, got {horizons}")
        return horizons

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns the curves per task, and what knowing the horizon was worth."""
        del bench
        trainer = Trainer(learner_of(subject), num_points=self.num_points, splits=("train",))
        keys = run_keys(self.seed, self.num_seeds)
        panels, gains, findings = [], [], []
        for task in self.tasks:
            family = task.build()
            curves = {told: trainer(family, keys, horizon=told) for told in self.horizons}
            panels.append(_curves_panel(task.label, curves))
            gain = _gains(curves)
            gains.append(spread_series(task.family.family, self.horizons, gain, role="category", marked=True))
            shortest = float(gain.mean(axis=0)[0])
            findings.append(
                f"{task.family.family}: told {self.horizons[0]} steps, the loss there is {shortest:.2f} × that of "
                f"the run told {self.horizons[-1]} at the same step."
            )
        panels.append(_gain_panel(self.horizons, gains))
        counted = "runs with different initialisations and batches"
        return self.result(subject, panels, n=self.num_seeds, counted=counted, findings=findings)


def _curves_panel(title: str, curves: dict[int, Curves]) -> Panel:
    series = []
    for told, curve in curves.items():
        # A logarithmic axis has no zero: the initialisation is left out.
        step, runs = curve.step[1:], curve.losses["train"][0][:, 1:]
        series.append(spread_series(f"told {told} steps", step, runs, role="ordered"))
    return Panel(
        title=title,
        x_label="inner step",
        y_label="training loss",
        x_scale="log",
        y_scale="log",
        series=tuple(series),
    )


def _gains(curves: dict[int, Curves]) -> np.ndarray:
    """Returns, per seed and horizon, the final loss over that of the longest run at the same step: [S, T]."""
    longest = curves[max(curves)]
    columns = []
    for curve in curves.values():
        end, losses = curve.step[-1], curve.losses["train"][0]
        there = [np.interp(end, longest.step, run) for run in longest.losses["train"][0]]
        columns.append(np.maximum(losses[:, -1], SOLVED) / np.maximum(there, SOLVED))
    return np.stack(columns, axis=1)


def _gain_panel(horizons: tuple[int, ...], gains: list[Series]) -> Panel:
    none = Series(name="no difference", role="reference", x=(horizons[0], horizons[-1]), y=(1.0, 1.0), n=1)
    return Panel(
        title="What knowing the end is worth",
        x_label="steps told, T",
        y_label="loss at T / longest run's there",
        x_scale="log",
        y_scale="log",
        series=(*gains, none),
    )
