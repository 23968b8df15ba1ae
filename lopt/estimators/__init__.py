"""Meta-gradient estimators. One file each; registering one is one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lopt.estimators.combined import CombinedConfig
from lopt.estimators.evolution import TasksConfig
from lopt.estimators.full_es import FullEsConfig
from lopt.estimators.persistent_es import PersistentEsConfig
from lopt.estimators.truncated_es import TruncatedEsConfig
from lopt.estimators.unrolled_backprop import UnrolledBackpropConfig
from lopt.registry import any_of

ESTIMATORS: dict[str, type[TasksConfig]] = {
    "full_es": FullEsConfig,
    "truncated_es": TruncatedEsConfig,
    "persistent_es": PersistentEsConfig,
    "unrolled_backprop": UnrolledBackpropConfig,
    "combined": CombinedConfig,
}


def validation_estimator(config: TasksConfig) -> FullEsConfig:
    """Returns what measures theta on whole unrolls with the objective and tasks of `config`, at σ = 0.

    Windows of a trajectory end anywhere; a validation loss is that of whole unrolls. For full ES it is `config`
    itself, so that training and validation share a compiled program.
    """
    if isinstance(config, FullEsConfig):
        return config
    shared = {name: getattr(config, name) for name in TasksConfig.model_fields}
    shared["task_normalization"] = "none"
    return FullEsConfig(sigma=1.0, num_pairs=1, **shared)


if TYPE_CHECKING:
    AnyEstimator = TasksConfig
else:
    AnyEstimator = any_of(ESTIMATORS, "estimator")
