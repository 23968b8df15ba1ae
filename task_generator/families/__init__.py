"""Task families. A new one is a file here and a line below."""

from task_generator.families.autoencoder import AutoencoderConfig
from task_generator.families.base import FamilyConfig
from task_generator.families.conv import ConvConfig
from task_generator.families.mlp import MlpConfig

FAMILIES: dict[str, type[FamilyConfig]] = {
    "autoencoder": AutoencoderConfig,
    "conv": ConvConfig,
    "mlp": MlpConfig,
}

__all__ = ["FAMILIES", "AutoencoderConfig", "ConvConfig", "FamilyConfig", "MlpConfig"]
