"""Task augmentations: transformations of families. A new one is a file here and a line below."""

from task_generator.augmentations.base import AugmentationConfig
from task_generator.augmentations.reparametrize import ReparametrizeConfig

AUGMENTATIONS: dict[str, type[AugmentationConfig]] = {
    "reparametrize": ReparametrizeConfig,
}

__all__ = ["AUGMENTATIONS", "AugmentationConfig", "ReparametrizeConfig"]
