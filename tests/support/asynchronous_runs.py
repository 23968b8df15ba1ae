"""Runs of the asynchronous learner on pretended workers, for the tests of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curriculum.events import OuterStepDone
from curriculum.learner import init_learner
from curriculum.meta_train_asynchronously import meta_train_asynchronously
from curriculum.phase import Phase
from lopt.architectures.pacer import PacerConfig
from task_generator.task_config import TaskConfig

CONFIG = PacerConfig()
THETA = {"a": np.zeros(3, np.float32), "b": np.zeros((2, 2), np.float32)}


def run(phase: Phase, tasks: Sequence[TaskConfig], stream: Any, **kwargs: Any) -> list[Any]:
    state = kwargs.pop("state", None) or init_learner(phase, THETA)
    clock = (lambda: stream.now) if hasattr(stream, "now") else (lambda: 0.0)
    return list(meta_train_asynchronously(phase, tasks, CONFIG, state, stream, seed=5, clock=clock, **kwargs))


def steps(events: Sequence[Any]) -> list[OuterStepDone]:
    return [event for event in events if isinstance(event, OuterStepDone)]
