"""Learned optimizer architectures. One file each; registering one is one line here."""

from __future__ import annotations

from lopt.architectures.contract import ArchitectureConfig
from lopt.architectures.pacer import PacerConfig
from lopt.architectures.velo import VeloConfig

ARCHITECTURES: dict[str, type[ArchitectureConfig]] = {
    "pacer": PacerConfig,
    "velo": VeloConfig,
}
