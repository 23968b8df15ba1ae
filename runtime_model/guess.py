"""Seconds of a step where no run-time model is fitted: from arithmetic alone, good enough to order work by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime_model.prediction import Prediction
from task_generator.task_config import TaskConfig

_SECONDS_PER_STEP = 2e-5
_FLOPS_PER_SECOND = 1e10
"""A laptop's core, roughly; which of two tasks is said to take longer hardly depends on either number."""


def guess_from_flops(configs: Sequence[TaskConfig]) -> Prediction:
    """Returns a guess for each configuration, all of them valid and of no stated uncertainty.

    What may be run must not be decided by it: families differ by more than their arithmetic.
    """
    flops = np.asarray([config.approximate_cost()["flops_per_step"] for config in configs], np.float64)
    count = len(configs)
    return Prediction(_SECONDS_PER_STEP + flops / _FLOPS_PER_SECOND, np.ones(count), np.zeros(count))
