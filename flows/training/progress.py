"""Where a run of a phase is: what is stored when it ends in any way, and shown while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from curriculum.events import OuterStepDone
from curriculum.learner import LearnerState
from flows.training.history import PhaseHistory
from storage.checkpoints import CheckpointInfo


@dataclass
class PhaseProgress:
    """Where a run of a phase is.

    Attributes:
      state: Of the learner.
      history: What was seen on the way.
      seconds: Spent so far, earlier parts of the run included.
      run_id: Of the tracked run; None before the first.
      stored: The newest checkpoint of `state`'s past.
    """

    state: LearnerState
    history: PhaseHistory = field(default_factory=PhaseHistory)
    seconds: float = 0.0
    run_id: str | None = None
    stored: CheckpointInfo | None = None

    def take_step(self, event: OuterStepDone) -> None:
        """Takes in an outer step that is over."""
        self.state = event.state
        self.history.add_step(event)
