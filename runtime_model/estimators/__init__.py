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
    "network": NetworkConfig(num_members=3),
    "paper": NetworkConfig(
        per_family=True,
        pair_size=128,
        set_size=512,
        num_steps=300,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.0,
    ),
}
"""With the paper's network, one of the release's size for each family, and smaller ones, three for all families
together: they take much longer to fit."""
