"""What a phase saw, step by step: columns of numbers that are stored with each checkpoint.

Stored inside the checkpoint, so that after a kill the history ends where the state does. Only what every
rerun would see again is in here; seconds are in the checkpoint's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from curriculum.events import OuterStepDone, Validated
from curriculum.phase import Phase
from flows.reporting import PhaseReport, ValidationPoint

_COLUMNS = {
    "outer_step": np.int64,
    "meta_loss": np.float64,
    "gradient_norm": np.float64,
    "num_inner_steps": np.float64,
    "validated_at": np.int64,
    "validation_loss": np.float64,
    "validation_inner_steps": np.float64,
}


@dataclass
class PhaseHistory:
    """Columns by name; those of outer steps are of one length, those of validations of another."""

    columns: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})

    def add_step(self, event: OuterStepDone) -> None:
        """Appends an outer step."""
        self.columns["outer_step"].append(event.outer_step)
        self.columns["meta_loss"].append(event.meta_loss)
        self.columns["gradient_norm"].append(event.gradient_norm)
        self.columns["num_inner_steps"].append(event.num_inner_steps)

    def add_validation(self, event: Validated) -> None:
        """Appends a validation."""
        self.columns["validated_at"].append(event.outer_step)
        self.columns["validation_loss"].append(event.meta_loss)
        self.columns["validation_inner_steps"].append(event.num_inner_steps)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the columns as arrays, each [n]."""
        return {name: np.asarray(self.columns[name], dtype) for name, dtype in _COLUMNS.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> PhaseHistory:
        """Restores what `arrays` gave; keys may be as the checkpoint names them (`['meta_loss']`)."""
        plain = {key.strip("[]'\""): values for key, values in arrays.items()}
        return cls({name: plain[name].tolist() for name in _COLUMNS})

    def validation_range(self) -> tuple[float, float] | None:
        """Returns the first and the lowest validation loss."""
        losses = self.columns["validation_loss"]
        return (losses[0], float(np.nanmin(losses))) if losses else None

    @property
    def inner_steps(self) -> float:
        """All inner steps of meta-gradients."""
        return sum(self.columns["num_inner_steps"])

    def report(self, phase: Phase, *, started_from: str, seconds: float) -> PhaseReport:
        """Returns what a report shows of the phase."""
        columns = self.columns
        points = zip(columns["validated_at"], columns["validation_loss"], strict=True)
        return PhaseReport(
            name=phase.name,
            title=phase.summary,
            started_from=started_from,
            horizon=(phase.estimator.min_horizon, phase.estimator.max_horizon),
            num_tasks=phase.num_static_configs * phase.estimator.num_tasks,
            num_pairs=phase.estimator.lanes_per_task,
            outer_step=tuple(int(step) for step in columns["outer_step"]),
            meta_loss=tuple(columns["meta_loss"]),
            validation=tuple(
                ValidationPoint(
                    outer_step=int(step),
                    meta_loss=loss,
                    initial_meta_loss=columns["validation_loss"][0],
                    num_tasks=phase.num_static_configs * phase.estimator.num_tasks,
                )
                for step, loss in points
            ),
            seconds=seconds,
            inner_steps=int(sum(columns["num_inner_steps"]) + sum(columns["validation_inner_steps"])),
        )
