"""How lengths are drawn from a range. One file each; registering one is one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lopt.lengths.base import LengthsConfig
from lopt.lengths.exponential import ExponentialConfig
from lopt.lengths.log_uniform import LogUniformConfig
from lopt.lengths.uniform import UniformConfig
from lopt.registry import any_of

LENGTHS: dict[str, type[LengthsConfig]] = {
    "log_uniform": LogUniformConfig,
    "uniform": UniformConfig,
    "exponential": ExponentialConfig,
}
if TYPE_CHECKING:
    AnyLengths = LengthsConfig
else:
    AnyLengths = any_of(LENGTHS, "lengths")

__all__ = [
    "LENGTHS",
    "AnyLengths",
    "ExponentialConfig",
    "LengthsConfig",
    "LogUniformConfig",
    "UniformConfig",
]
