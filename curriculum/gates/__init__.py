"""Gates: what a candidate must show to become the champion, as data.

A gate is a named tuple of conditions; all must be met. A condition is one file here and one line in `CONDITIONS`; a
gate is one entry of `GATES`, or a JSON document with the same fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from curriculum.gates.above_champion_interval import AboveChampionIntervalConfig
from curriculum.gates.champion_ratio import ChampionRatioConfig
from curriculum.gates.condition import AbstractCondition, GateCheck
from curriculum.gates.enough_evidence import EnoughEvidenceConfig
from curriculum.gates.gain_over_initialisation import GainOverInitialisationConfig
from curriculum.gates.no_divergence import NoDivergenceConfig
from curriculum.gates.quantile_not_worse import QuantileNotWorseConfig
from lopt.config import FrozenConfig
from lopt.registry import any_of, lookup

__all__ = ["CONDITIONS", "GATES", "Gate", "GateCheck", "get_gate"]

CONDITIONS: dict[str, type[AbstractCondition]] = {
    "no_divergence": NoDivergenceConfig,
    "gain_over_initialisation": GainOverInitialisationConfig,
    "champion_ratio": ChampionRatioConfig,
    "above_champion_interval": AboveChampionIntervalConfig,
    "quantile_not_worse": QuantileNotWorseConfig,
    "enough_evidence": EnoughEvidenceConfig,
}

if TYPE_CHECKING:
    AnyCondition = AbstractCondition
else:
    AnyCondition = any_of(CONDITIONS, "condition")


class Gate(FrozenConfig):
    """A named tuple of conditions."""

    name: str = Field(min_length=1, max_length=60)
    summary: str = ""
    """One line for people: what it is for."""
    conditions: tuple[AnyCondition, ...] = Field(min_length=1)


DEFAULT_GATE = Gate(
    name="default",
    summary="Better than its initialisation, and on average not slower than the champion.",
    conditions=(
        NoDivergenceConfig(),
        # All tasks of a set may be held out: nothing is wrong with that.
        GainOverInitialisationConfig(held_out=False, min_ratio=1.0, needs_tasks=False),
        # Meta-training may not cost generalisation by more than this.
        GainOverInitialisationConfig(held_out=True, min_ratio=0.95),
        ChampionRatioConfig(min_ratio=1.0),
    ),
)

STRICT_GATE = Gate(
    name="strict",
    summary="For a set like embedded24: enough evidence, and not worse than the champion in any of three ways.",
    conditions=(
        EnoughEvidenceConfig(min_tasks=8, min_held_out=4, min_seeds=3),
        NoDivergenceConfig(),
        GainOverInitialisationConfig(held_out=False, min_ratio=1.0, needs_tasks=False),
        GainOverInitialisationConfig(held_out=True, min_ratio=1.0),
        AboveChampionIntervalConfig(confidence=0.95),
        QuantileNotWorseConfig(quantile=0.1, min_ratio=1.0),
        ChampionRatioConfig(held_out=True, min_ratio=1.0, min_tasks=4),
    ),
)

GATES: dict[str, Gate] = {gate.name: gate for gate in (DEFAULT_GATE, STRICT_GATE)}


def get_gate(name: str) -> Gate:
    """Returns the gate called `name`.

    Raises:
      UnknownNameError: If there is none; says which there are, and the nearest.
    """
    return lookup(GATES, name, kind="gate")
