"""Ways to predict log seconds. One file each; registering one is one line here.

For every family the one with the least held-out error predicts (`runtime_model.fitting`). A model
fitted elsewhere, corrected (`transferred`), competes too where there is one.
"""

from __future__ import annotations

from runtime_model.estimators.additive import AdditiveConfig
from runtime_model.estimators.base import EstimatorConfig
from runtime_model.estimators.network import NetworkConfig
from runtime_model.estimators.process import ProcessConfig

ESTIMATORS: dict[str, EstimatorConfig] = {
    "process": ProcessConfig(),
    "additive": AdditiveConfig(),
}
COMPARED: dict[str, EstimatorConfig] = {
    **ESTIMATORS,
    "network": NetworkConfig(),
    "paper": NetworkConfig(per_family=True),
}
"""With the paper's network, one for all families and one for each: they take much longer to fit."""
