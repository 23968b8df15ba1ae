"""Learned optimizer architectures. One file each; registering one is one line here."""

from __future__ import annotations

from lopt.architectures.adafactor_mlp import AdafactorMlpConfig
from lopt.architectures.celo2 import Celo2Config
from lopt.architectures.ciao import CiaoConfig
from lopt.architectures.component_lstm import ComponentLstmConfig
from lopt.architectures.hierarchical_gru import HierarchicalGruConfig
from lopt.architectures.learnable_adam import LearnableAdamConfig
from lopt.architectures.learnable_sgd import LearnableSgdConfig
from lopt.architectures.learnable_sgdm import LearnableSgdmConfig
from lopt.architectures.pacer import PacerConfig
from lopt.architectures.per_parameter_mlp import PerParameterMlpConfig
from lopt.architectures.rnn_mlp import RnnMlpConfig
from lopt.architectures.velo import VeloConfig
from lopt.contract import ArchitectureConfig

ARCHITECTURES: dict[str, type[ArchitectureConfig]] = {
    "adafactor_mlp": AdafactorMlpConfig,
    "celo2": Celo2Config,
    "ciao": CiaoConfig,
    "component_lstm": ComponentLstmConfig,
    "hierarchical_gru": HierarchicalGruConfig,
    "learnable_adam": LearnableAdamConfig,
    "learnable_sgd": LearnableSgdConfig,
    "learnable_sgdm": LearnableSgdmConfig,
    "pacer": PacerConfig,
    "per_parameter_mlp": PerParameterMlpConfig,
    "rnn_mlp": RnnMlpConfig,
    "velo": VeloConfig,
}
