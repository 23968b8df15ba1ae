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

if TYPE_CHECKING:
    AnyEstimator = TasksConfig
else:
    AnyEstimator = any_of(ESTIMATORS, "estimator")
