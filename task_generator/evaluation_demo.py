"""The demo's fixed tasks. Each is small: some 0.1 ms per Adam step on one core.

`heldout_demo` lies outside the support of "demo", which the demo's phases draw from, and `indistribution_demo`
inside it: a test asks (`TaskDistribution.could_sample`). Activation, initialiser and scale are fixed, so that a
task means the same for every seed and no switch is compiled.
"""

from __future__ import annotations

from typing import Any

from task_generator.augmentations import ReparametrizeConfig
from task_generator.evaluation_task import EvaluationTask
from task_generator.families import AutoencoderConfig, ConvConfig, MlpConfig
from task_generator.task_config import TaskConfig


def _task(name: str, family: type[Any], **fields: Any) -> EvaluationTask:
    common = {"image_size": 8, "initializer": "normal", "init_scale": 1.0}
    return EvaluationTask(name=name, config=TaskConfig(family=family.model_validate({**common, **fields})))


def _scaled(task: EvaluationTask, **fields: Any) -> EvaluationTask:
    augmentation = ReparametrizeConfig.model_validate(fields)
    config = TaskConfig(family=task.config.family, augmentations=(augmentation,))
    return EvaluationTask(name=f"{task.name}-{augmentation.level}-scale", config=config)


_SQUARED_ERROR = {"log_loss": False, "center_data": False, "constrain_output": False}

HELDOUT_DEMO = (
    # Out of the training ranges by width, by depth, by activation, by the depth of a convolutional net, and
    # by the kind of task.
    _task(
        "mlp-wide",
        MlpConfig,
        hidden_size=192,
        num_layers=1,
        batch_size=32,
        dataset="digits",
        activation="relu",
    ),
    _task(
        "mlp-deep",
        MlpConfig,
        hidden_size=32,
        num_layers=6,
        batch_size=64,
        dataset="digits",
        activation="tanh",
    ),
    _task(
        "mlp-elu",
        MlpConfig,
        hidden_size=48,
        num_layers=2,
        batch_size=64,
        dataset="photo_patches",
        activation="elu",
    ),
    _task(
        "conv-narrow-deep",
        ConvConfig,
        hidden_size=8,
        num_layers=4,
        num_stride_2_layers=2,
        batch_size=32,
        dataset="digits",
        activation="relu",
    ),
    _task(
        "autoencoder-digits",
        AutoencoderConfig,
        hidden_size=24,
        num_layers=1,
        batch_size=64,
        dataset="digits",
        activation="tanh",
        **_SQUARED_ERROR,
    ),
    _task(
        "autoencoder-photos",
        AutoencoderConfig,
        hidden_size=32,
        num_layers=2,
        batch_size=32,
        dataset="photo_patches",
        activation="softplus",
        **_SQUARED_ERROR,
    ),
)

_MLP_DIGITS = _task(
    "mlp-digits", MlpConfig, hidden_size=32, num_layers=2, batch_size=64, dataset="digits", activation="relu"
)

INDISTRIBUTION_DEMO = (
    _MLP_DIGITS,
    _scaled(_MLP_DIGITS, level="tensor", low=0.1, high=10.0),
    _task(
        "mlp-photos",
        MlpConfig,
        hidden_size=64,
        num_layers=1,
        batch_size=32,
        dataset="photo_patches",
        activation="gelu",
    ),
    _task(
        "conv-digits",
        ConvConfig,
        hidden_size=8,
        num_layers=2,
        num_stride_2_layers=1,
        batch_size=32,
        dataset="digits",
        activation="relu",
    ),
)
