"""A gradient from the seeds and weights that it is made of: what evolution strategies need not send.

[1] Salimans et al. 2017, arXiv:1703.03864, 2: workers that know each other's seeds send scalars only.
"""

from __future__ import annotations

from lopt.perturbations.base import PerturbationConfig
from lopt.types import Combination, Theta


def gradient_of(perturbation: PerturbationConfig, theta: Theta, combination: Combination) -> Theta:
    """Returns Σₙ (w⁺ₙ ε⁺ₙ + w⁻ₙ ε⁻ₙ), a tree like theta.

    The directions are those that the estimator drew. A key draws the same bits wherever the same kind of device
    draws them; between a CPU and a GPU, normal draws may differ in their last bit.

    Args:
      perturbation: The strategy that the estimator has.
      theta: For its shapes and types; its values do not matter.
      combination: Of the estimate.
    """
    num_lanes = combination.weights.shape[0]
    return perturbation.sample(theta, combination.key, num_lanes).weighted_sum(combination.weights)
