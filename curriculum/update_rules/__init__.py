"""What turns a clipped meta-gradient into a step of theta. One file each; registering one is one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curriculum.update_rules.adam import AdamConfig
from curriculum.update_rules.adamw import AdamWConfig
from curriculum.update_rules.base import UpdateRuleConfig
from curriculum.update_rules.rmsprop import RmsPropConfig
from curriculum.update_rules.sgd import SgdConfig
from lopt.registry import any_of

UPDATE_RULES: dict[str, type[UpdateRuleConfig]] = {
    "adam": AdamConfig,
    "adamw": AdamWConfig,
    "rmsprop": RmsPropConfig,
    "sgd": SgdConfig,
}
if TYPE_CHECKING:
    AnyUpdateRule = UpdateRuleConfig
else:
    AnyUpdateRule = any_of(UPDATE_RULES, "rule")

__all__ = [
    "UPDATE_RULES",
    "AdamConfig",
    "AdamWConfig",
    "AnyUpdateRule",
    "RmsPropConfig",
    "SgdConfig",
    "UpdateRuleConfig",
]
