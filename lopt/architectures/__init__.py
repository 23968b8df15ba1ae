"""Learned optimizer architectures. One file each; registering one is one line here."""

from __future__ import annotations

from lopt.architectures.pacer import PacerConfig

ARCHITECTURES: dict[str, type[PacerConfig]] = {
    "pacer": PacerConfig,
}
