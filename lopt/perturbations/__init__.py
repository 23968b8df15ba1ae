"""Ways to perturb theta. One file each; registering one is one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lopt.perturbations.antithetic import AntitheticConfig
from lopt.perturbations.base import PerturbationConfig
from lopt.perturbations.independent import IndependentConfig
from lopt.perturbations.low_rank import LowRankConfig
from lopt.registry import any_of

PERTURBATIONS: dict[str, type[PerturbationConfig]] = {
    "antithetic": AntitheticConfig,
    "independent": IndependentConfig,
    "low_rank": LowRankConfig,
}
if TYPE_CHECKING:
    AnyPerturbation = PerturbationConfig
else:
    AnyPerturbation = any_of(PERTURBATIONS, "perturbation")

__all__ = [
    "PERTURBATIONS",
    "AntitheticConfig",
    "AnyPerturbation",
    "IndependentConfig",
    "LowRankConfig",
    "PerturbationConfig",
]
