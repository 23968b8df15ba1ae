"""What a person may change while a phase runs (VeLO, E.4): three numbers, and whether it goes on.

A control record is data; whoever runs the phase hands in a function that reads the latest one. The loop looks at it
before every outer step, so a change takes effect within one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from curriculum.phase import Phase
from lopt.config import FrozenConfig, derive

Command = Literal["run", "pause", "stop"]


class Control(FrozenConfig):
    """The wish as it stands; None leaves what the phase says."""

    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate of theta's optimizer.")
    batch_size: int | None = Field(None, ge=1, description="Meta-gradients per outer step (asynchronous).")
    max_staleness: int | None = Field(
        None, ge=0, description="Outer steps after which a meta-gradient is dropped (asynchronous)."
    )
    command: Command = Field("run", description="run, pause, or stop after a checkpoint.")

    @property
    def changes(self) -> dict[str, Any]:
        """The numbers that were set."""
        return {
            name: value for name, value in self.model_dump(exclude={"command"}).items() if value is not None
        }


ReadControl = Callable[[], Control]


def no_control() -> Control:
    """Returns the record of a phase that nobody interferes with."""
    return Control()


def controlled(phase: Phase, control: Control) -> Phase:
    """Returns the phase with the record's numbers, validated whole.

    Raises:
      ValueError: If a number does not go with the phase.
    """
    changes = control.changes
    rate = changes.pop("learning_rate", None)
    if rate is not None:
        changes["theta_optimizer"] = derive(phase.theta_optimizer, learning_rate=rate).model_dump()
    unusable = [
        name for name in ("batch_size", "max_staleness") if name in changes and phase.mode != "asynchronous"
    ]
    if unusable:
        raise ValueError(
            f"phase {phase.name!r} is {phase.mode}: it has no {', '.join(f'`{name}`' for name in unusable)} to "
            "change. Change `learning_rate`, or run it with `--mode asynchronous`."
        )
    return derive(phase, **changes) if changes else phase
