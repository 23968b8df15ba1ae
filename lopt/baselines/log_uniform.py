"""The draw that published random searches are made of."""

from __future__ import annotations

import math

import numpy as np


def log_uniform(rng: np.random.RandomState, low: float, high: float) -> float:
    """Returns exp(u), u uniform between log `low` and log `high`; one draw of `rng`."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))
