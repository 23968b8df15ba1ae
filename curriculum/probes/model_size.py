"""The same network in several widths: whether an optimizer keeps its lead as models grow.

[1] Metz et al. 2022, "VeLO", G.5 and Fig. 31.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Subject
from curriculum.probes.scaling import Point, scaling_series, wins
from curriculum.probes.tasks import autoencoder, mlp
from curriculum.probes.training import learner_of, run_keys, tuned
from task_generator.task_config import TaskConfig


class ModelSize(Probe):
    """Trains models of rising width for the same number of steps, against tuned Adam."""

    name: ClassVar[str] = "model_size"
    title: ClassVar[str] = "Model-size scaling"
    question: ClassVar[str] = "Does the optimizer keep its lead on models larger than those it learned on?"
    source: ClassVar[str] = "Metz et al. 2022 (VeLO), G.5, Fig. 31"
    how_to_read: ClassVar[str] = (
        "Final training loss against the number of parameters, one panel per kind of model. Two parallel "
        "falling lines say that the optimizer is worth a constant factor in model size. Lines that meet or "
        "cross to the right say that its lead ends where models outgrow those it was meta-trained on. Adam's "
        "learning rate is tuned at every size; the learned optimizer runs once, untuned."
    )
    deviations: ClassVar[str] = (
        "Classifiers and auto-encoders of digits, up to about 300,000 parameters, for hundreds of steps (the "
        "paper: up to 100 million, 10,000 steps); ranges over seeds instead of standard errors."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "widths": (4, 8),
        "kinds": ("mlp",),
        "horizon": 20,
        "learning_rates": (1e-3, 1e-2),
        "num_seeds": 2,
    }

    kinds: tuple[str, ...] = Field(("mlp", "autoencoder"), min_length=1)
    widths: tuple[int, ...] = Field((4, 16, 64, 256), min_length=2)
    horizon: int = Field(300, ge=2)
    learning_rates: tuple[float, ...] = Field((3e-4, 1e-3, 3e-3, 1e-2, 3e-2), min_length=1)
    num_seeds: int = Field(3, ge=1, le=100)

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns final losses against the number of parameters, a panel per kind of model."""
        del bench
        learners = (learner_of(subject), tuned("adam", self.learning_rates))
        keys = run_keys(self.seed, self.num_seeds)
        panels, findings = [], []
        for kind in self.kinds:
            tasks = [_task(kind, width) for width in self.widths]
            points = [Point(t.approximate_cost()["num_params"], t, self.horizon, 16) for t in tasks]
            series = scaling_series(points, learners, keys)
            panels.append(
                Panel(
                    title=f"{kind} · {self.horizon} steps",
                    x_label="parameters",
                    y_label="final training loss",
                    x_scale="log",
                    y_scale="log",
                    series=series,
                )
            )
            smallest, largest = (series[0].y[i] / series[1].y[i] for i in (0, -1))
            findings.append(
                f"{kind}: below tuned Adam at {wins(series)} of {len(points)} sizes; its loss is {smallest:.2f} × "
                f"Adam's on the smallest model and {largest:.2f} × on the largest."
            )
        counted = "runs with different initialisations and batches"
        return self.result(subject, panels, n=self.num_seeds, counted=counted, findings=findings)


def _task(kind: str, width: int) -> TaskConfig:
    makers = {"mlp": lambda: mlp(hidden_size=width), "autoencoder": lambda: autoencoder(hidden_size=width)}
    return makers[kind]()
