"""The curricula: sequences of phases. One file a phase or a paper; registering one is one line here."""

from __future__ import annotations

from curriculum.curriculum import phases_by_name
from curriculum.phase import Phase
from curriculum.phases.broad import BROAD
from curriculum.phases.celo2 import CELO2, CELO2_LAPTOP
from curriculum.phases.four_small import FOUR_SMALL
from curriculum.phases.lhopt import LHOPT, LHOPT_LAPTOP
from curriculum.phases.long_horizon import LONG_HORIZON
from curriculum.phases.metz2018 import METZ2018, METZ2018_LAPTOP, METZ2018_ON_VALIDATION
from curriculum.phases.metz2020 import (
    METZ2020,
    METZ2020_LAPTOP,
    METZ2020_WITH_GROWTH,
    METZ2020_WITH_GROWTH_LAPTOP,
)
from curriculum.phases.short_horizon import SHORT_HORIZON
from curriculum.phases.velo import VELO, VELO_LAPTOP
from curriculum.phases.wichrowska2017 import WICHROWSKA2017, WICHROWSKA2017_LAPTOP
from lopt.registry import lookup

CURRICULA: dict[str, tuple[Phase, ...]] = {
    "demo": (SHORT_HORIZON, LONG_HORIZON),
    "four_small": FOUR_SMALL,
    "broad": BROAD,
    "velo": VELO,
    "velo_laptop": VELO_LAPTOP,
    "metz2020": METZ2020,
    "metz2020_laptop": METZ2020_LAPTOP,
    "metz2020_growing": METZ2020_WITH_GROWTH,
    "metz2020_growing_laptop": METZ2020_WITH_GROWTH_LAPTOP,
    "metz2018": METZ2018,
    "metz2018_validation": METZ2018_ON_VALIDATION,
    "metz2018_laptop": METZ2018_LAPTOP,
    "wichrowska2017": WICHROWSKA2017,
    "wichrowska2017_laptop": WICHROWSKA2017_LAPTOP,
    "celo2": CELO2,
    "celo2_laptop": CELO2_LAPTOP,
    "lhopt": LHOPT,
    "lhopt_laptop": LHOPT_LAPTOP,
}

PHASES: dict[str, Phase] = phases_by_name(CURRICULA)


def get_phase(name: str) -> Phase:
    """Returns the phase called `name`.

    Raises:
      UnknownNameError: If there is none; says which there are, and the nearest.
    """
    return lookup(PHASES, name, kind="phase")


def get_curriculum(name: str) -> tuple[Phase, ...]:
    """Returns the phases of the curriculum called `name`.

    Raises:
      UnknownNameError: If there is none; says which there are, and the nearest.
    """
    return lookup(CURRICULA, name, kind="curriculum")
