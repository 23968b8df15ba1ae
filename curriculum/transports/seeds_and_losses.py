"""Seeds and losses instead of gradients: the learner draws the perturbations again and weighs them itself.

A unit then sends a key and two numbers per lane, whatever theta's size. They are the weights that its losses came
to (after what is done per task: ranks, unit norm), so the learner's sum is the one that the worker would have sent.
The price is the learner's time: it draws lanes × theta numbers per unit; adding a gradient reads theta numbers.

[1] Salimans et al. 2017, arXiv:1703.03864, 2. There every worker draws everyone's perturbations, and no learner is
needed; here one does, because theta's optimizer and validations live there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from curriculum.transports.base import Packed
from curriculum.transports.dense import Dense
from lopt.estimators import ESTIMATORS
from lopt.estimators.evolution import EvolutionConfig, TasksConfig
from lopt.perturbations.base import PerturbationConfig
from lopt.perturbations.combination import gradient_of
from lopt.types import Combination, MetaGradient, Theta


class SeedAndWeights(NamedTuple):
    """A `Combination` as NumPy."""

    key: np.ndarray  # a key's own numbers, uint32
    weights: np.ndarray  # [lanes, 2]


class SeedsAndLosses:
    """Sends what gradients are made of."""

    name = "seeds_and_losses"
    units_per_message = 1

    def refusal(self, estimator: TasksConfig, mode: str) -> str:
        """Returns "" for estimators whose gradients are made of perturbations that one key draws."""
        del mode
        if estimator.gives_combination:
            return ""
        able = [n for n, c in ESTIMATORS.items() if c.gives_combination is not TasksConfig.gives_combination]
        named = getattr(estimator, "estimator", type(estimator).__name__)
        return (
            "transport 'seeds_and_losses' needs an estimator whose gradient is a weighted sum of freshly drawn "
            f"perturbations ({', '.join(able)}), got {named!r}. Use 'dense', or leave it at 'auto'."
        )

    def pack(self, result: MetaGradient) -> Packed:
        """Returns the key and the weights, as a sum of one.

        Raises:
          ValueError: If the result is not made of perturbations.
        """
        if result.combination is None:
            raise ValueError("transport 'seeds_and_losses' got a gradient that is not made of perturbations")
        key, weights = result.combination
        return (SeedAndWeights(np.asarray(jax.random.key_data(key)), np.asarray(weights)),)

    def add(self, packed: Sequence[Packed]) -> Packed:
        """Returns all of them: their sum is not taken before it is unpacked."""
        return tuple(part for parts in packed for part in parts)

    def unpack(self, packed: Packed, estimator: TasksConfig, theta: Theta) -> Theta:
        """Returns the sum of the gradients that the seeds and weights describe."""
        assert isinstance(estimator, EvolutionConfig)  # others have been refused
        perturbation = estimator.perturbation
        return Dense().add([jax.device_get(_drawn(perturbation, theta, *part)) for part in packed])


@partial(jax.jit, static_argnums=0)
def _drawn(perturbation: PerturbationConfig, theta: Theta, key: jax.Array, weights: jax.Array) -> Theta:
    return gradient_of(perturbation, theta, Combination(jax.random.wrap_key_data(key), weights))
