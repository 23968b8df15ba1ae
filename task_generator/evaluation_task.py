"""A fixed task and its name."""

from __future__ import annotations

from lopt.config import FrozenConfig
from task_generator.task_config import TaskConfig


class EvaluationTask(FrozenConfig):
    """A task and the name it has in tables."""

    name: str
    config: TaskConfig
