"""Task families. A new one is a file here and a line below."""

from task_generator.families.algorithmic import AlgorithmicConfig
from task_generator.families.autoencoder import AutoencoderConfig
from task_generator.families.base import FamilyConfig
from task_generator.families.conv import ConvConfig
from task_generator.families.functions_2d import Functions2DConfig
from task_generator.families.logistic_regression import LogisticRegressionConfig
from task_generator.families.lopt_training import LoptTrainingConfig
from task_generator.families.minibatch_quadratic import MinibatchQuadraticConfig
from task_generator.families.mlp import MlpConfig
from task_generator.families.mlp_mixer import MlpMixerConfig
from task_generator.families.noisy_quadratic import NoisyQuadraticConfig
from task_generator.families.normalizing_flow import MafConfig, RealNvpConfig
from task_generator.families.quadratics import QuadraticConfig
from task_generator.families.resnet import ResNetConfig
from task_generator.families.rnn_lm import RnnLmConfig
from task_generator.families.slow_convergence import SlowConvergenceConfig
from task_generator.families.sum_of_problems import SumOfProblemsConfig
from task_generator.families.text_classification import TextClassificationConfig
from task_generator.families.transformer_lm import TransformerLmConfig
from task_generator.families.vae import VaeConfig
from task_generator.families.vit import VitConfig

FAMILIES: dict[str, type[FamilyConfig]] = {
    "algorithmic": AlgorithmicConfig,
    "autoencoder": AutoencoderConfig,
    "conv": ConvConfig,
    "functions_2d": Functions2DConfig,
    "logistic_regression": LogisticRegressionConfig,
    "lopt_training": LoptTrainingConfig,
    "maf": MafConfig,
    "minibatch_quadratic": MinibatchQuadraticConfig,
    "mlp": MlpConfig,
    "mlp_mixer": MlpMixerConfig,
    "noisy_quadratic": NoisyQuadraticConfig,
    "quadratic": QuadraticConfig,
    "real_nvp": RealNvpConfig,
    "resnet": ResNetConfig,
    "rnn_lm": RnnLmConfig,
    "slow_convergence": SlowConvergenceConfig,
    "sum_of_problems": SumOfProblemsConfig,
    "text_classification": TextClassificationConfig,
    "transformer_lm": TransformerLmConfig,
    "vae": VaeConfig,
    "vit": VitConfig,
}

__all__ = ["FAMILIES", "AutoencoderConfig", "ConvConfig", "FamilyConfig", "LoptTrainingConfig", "MlpConfig"]
