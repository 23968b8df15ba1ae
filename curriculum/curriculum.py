"""What holds between phases: every start exists and comes before, and a name means one phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from curriculum.phase import Phase
from lopt.registry import lookup


def phases_by_name(curricula: Mapping[str, Sequence[Phase]]) -> dict[str, Phase]:
    """Returns all phases by name.

    Args:
      curricula: Sequences of phases, by name.

    Raises:
      ValueError: If two different phases have one name, if phases start from each other in a circle, or if a phase
        comes before the one that it starts from.
      UnknownNameError: If a phase starts from one that does not exist; names the nearest.
    """
    phases: dict[str, Phase] = {}
    for curriculum, sequence in curricula.items():
        for phase in sequence:
            if phases.setdefault(phase.name, phase) != phase:
                raise ValueError(
                    f"curriculum {curriculum!r} has another phase {phase.name!r} than one before it. Give one of "
                    "them another name: checkpoints and aliases go by it."
                )
    for phase in phases.values():
        _follow_starts(phase, phases)
    for curriculum, sequence in curricula.items():
        _require_order(curriculum, sequence)
    return phases


def _follow_starts(phase: Phase, phases: Mapping[str, Phase]) -> None:
    seen = [phase.name]
    while phase.start_from is not None:
        start = lookup(phases, phase.start_from, kind=f"phase that {phase.name!r} starts from")
        if start.name in seen:
            circle = " ← ".join([*seen[seen.index(start.name) :], start.name])
            raise ValueError(
                f"phases start from each other in a circle: {circle}. Let one of them start from an earlier "
                "phase, or from None."
            )
        seen.append(start.name)
        phase = start


def _require_order(curriculum: str, sequence: Sequence[Phase]) -> None:
    names = [phase.name for phase in sequence]
    for index, phase in enumerate(sequence):
        if phase.start_from in names[index:]:
            raise ValueError(
                f"curriculum {curriculum!r} has phase {phase.name!r} before {phase.start_from!r}, which it starts "
                "from. Change their order."
            )
