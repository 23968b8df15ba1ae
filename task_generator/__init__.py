"""Tasks to train on: families, data sets, augmentations, and how they are sampled."""

from task_generator.evaluation_set import EVALUATION_SETS, EvaluationTask, get_evaluation_set
from task_generator.known_distributions import DISTRIBUTIONS, get_distribution
from task_generator.sampling import TaskDistribution, sample_task_config, sample_task_configs
from task_generator.task_config import TaskConfig, parse_task_config

__all__ = [
    "DISTRIBUTIONS",
    "EVALUATION_SETS",
    "EvaluationTask",
    "TaskConfig",
    "TaskDistribution",
    "get_distribution",
    "get_evaluation_set",
    "parse_task_config",
    "sample_task_config",
    "sample_task_configs",
]
