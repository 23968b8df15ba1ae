"""Task augmentations: transformations of families. A new one is a file here and a line below.

The registry's order is the paper's, and the order in which `TaskConfig` is meant to apply them.
"""

from task_generator.augmentations.base import AugmentationConfig
from task_generator.augmentations.delayed_gradients import DelayedGradientsConfig
from task_generator.augmentations.es_gradients import ESGradientsConfig
from task_generator.augmentations.low_precision import LowPrecisionConfig
from task_generator.augmentations.normalized_gradient import NormalizedGradientConfig
from task_generator.augmentations.reduced_batch import ReducedBatchConfig
from task_generator.augmentations.reparametrize import ReparametrizeConfig
from task_generator.augmentations.sparse_gradients import SparseGradientsConfig
from task_generator.augmentations.subsampled_directions import SubsampledDirectionsConfig
from task_generator.augmentations.warped_loss import WarpedLossConfig

AUGMENTATIONS: dict[str, type[AugmentationConfig]] = {
    "reparametrize": ReparametrizeConfig,
    "es_gradients": ESGradientsConfig,
    "reduced_batch": ReducedBatchConfig,
    "low_precision": LowPrecisionConfig,
    "normalized_gradient": NormalizedGradientConfig,
    "subsampled_directions": SubsampledDirectionsConfig,
    "delayed_gradients": DelayedGradientsConfig,
    "sparse_gradients": SparseGradientsConfig,
    "warped_loss": WarpedLossConfig,
}

__all__ = [
    "AUGMENTATIONS",
    "AugmentationConfig",
    "DelayedGradientsConfig",
    "ESGradientsConfig",
    "LowPrecisionConfig",
    "NormalizedGradientConfig",
    "ReducedBatchConfig",
    "ReparametrizeConfig",
    "SparseGradientsConfig",
    "SubsampledDirectionsConfig",
    "WarpedLossConfig",
]
