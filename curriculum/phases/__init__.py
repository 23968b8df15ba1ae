"""The curricula: sequences of phases. One file a phase; registering one is one line here."""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.phases.long_horizon import LONG_HORIZON
from curriculum.phases.short_horizon import SHORT_HORIZON
from lopt.registry import lookup

CURRICULA: dict[str, tuple[Phase, ...]] = {
    "demo": (SHORT_HORIZON, LONG_HORIZON),
}

PHASES: dict[str, Phase] = {phase.name: phase for curriculum in CURRICULA.values() for phase in curriculum}


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
