"""`embedded24`: a canonical task of every family, small, on data that need no download.

For a first look at an optimizer on everything: 2 000 steps of each take one CPU core under twelve minutes
(`benchmarks/embedded_set.py`). Whatever can be fixed is, so that a task means the same for every seed; problems
that are random by construction (bowls, regressions) are drawn by the seed.
"""

from __future__ import annotations

from typing import Any

from task_generator.evaluation_task import EvaluationTask
from task_generator.task_config import parse_task_config

RELU = {"activation": "relu", "initializer": "truncated_normal", "init_scale": 1.0}
TANH = {**RELU, "activation": "tanh"}
KERNELS = {"initializer": "truncated_normal", "init_scale": 1.0}
DIGITS = {"dataset": "digits", "image_size": 8}
PHOTOS = {"dataset": "photo_patches", "image_size": 12}


def _task(name: str, *augmentations: dict[str, Any], **family: Any) -> EvaluationTask:
    config = parse_task_config({"family": family, "augmentations": augmentations})
    return EvaluationTask(name=f"embedded-{name}", config=config)


EMBEDDED24: tuple[EvaluationTask, ...] = (
    _task("mlp-digits", family="mlp", hidden_size=64, num_layers=2, batch_size=64, **DIGITS, **RELU),
    _task("mlp-photos", family="mlp", hidden_size=128, num_layers=1, batch_size=64, **PHOTOS, **TANH),
    _task(
        "mlp-digits-es",
        {"augmentation": "es_gradients", "std": 0.01, "num_pairs": 4},
        family="mlp",
        hidden_size=32,
        num_layers=1,
        batch_size=64,
        **DIGITS,
        **RELU,
    ),
    _task(
        "conv-photos",
        family="conv",
        hidden_sizes=(16, 32),
        num_stride_2_layers=2,
        batch_size=32,
        **PHOTOS,
        **RELU,
    ),
    _task(
        "autoencoder-photos",
        family="autoencoder",
        hidden_sizes=(64, 16, 64),
        batch_size=32,
        log_loss=False,
        center_data=False,
        constrain_output=True,
        **PHOTOS,
        **RELU,
    ),
    _task(
        "vae-digits",
        family="vae",
        enc_hidden_size=64,
        enc_num_layers=1,
        dec_hidden_size=64,
        dec_num_layers=1,
        latent_size=8,
        batch_size=64,
        center_data=False,
        per_dim_loss=True,
        **DIGITS,
        **RELU,
    ),
    _task(
        "resnet-digits",
        family="resnet",
        version="v2",
        blocks_per_group=(1, 1, 1, 1),
        width_pattern="1-2-2-2",
        base_channels=16,
        initial_conv_kernel_size=3,
        initial_conv_channels=16,
        initial_conv_stride=1,
        max_pool=False,
        batch_size=32,
        **DIGITS,
        **RELU,
    ),
    _task(
        "vit-digits",
        family="vit",
        num_layers=2,
        heads={"num": 4, "size": 8},
        mlp_dim=64,
        patch_size=2,
        batch_size=32,
        **DIGITS,
    ),
    _task(
        "mixer-photos",
        family="mlp_mixer",
        hidden_dim=32,
        num_blocks=2,
        tokens_mlp_dim=32,
        channels_mlp_dim=64,
        patch_size=4,
        batch_size=32,
        **PHOTOS,
    ),
    _task(
        "maf-digits",
        family="maf",
        hidden_size=64,
        num_layers=1,
        num_flow_layers=3,
        batch_size=64,
        **DIGITS,
        **RELU,
    ),
    _task(
        "real-nvp-digits",
        family="real_nvp",
        hidden_size=64,
        num_layers=1,
        num_flow_layers=4,
        batch_size=64,
        **DIGITS,
        **RELU,
    ),
    _task(
        "lstm-bytes",
        family="rnn_lm",
        cell="lstm",
        hidden_size=64,
        embed_size=32,
        sequence_length=32,
        batch_size=16,
        dataset="english_bytes",
        **KERNELS,
    ),
    _task(
        "gru-subwords",
        family="rnn_lm",
        cell="gru",
        hidden_size=48,
        embed_size=32,
        sequence_length=16,
        batch_size=16,
        dataset="english_subwords",
        vocab_size=1000,
        **KERNELS,
    ),
    _task(
        "transformer-bytes",
        family="transformer_lm",
        head_size=8,
        num_heads=4,
        num_layers=2,
        dropout_rate=0.0,
        positions="learned",
        sequence_length=32,
        batch_size=8,
        dataset="english_bytes",
    ),
    _task(
        "text-classification",
        family="text_classification",
        cell="gru",
        hidden_size=32,
        embed_size=16,
        num_classes=8,
        sequence_length=32,
        batch_size=32,
        pooling="mean",
        dataset="english_bytes",
        **KERNELS,
    ),
    _task(
        "addition",
        family="algorithmic",
        problem="addition",
        length=8,
        cell="gru",
        hidden_size=32,
        batch_size=32,
        **KERNELS,
    ),
    _task(
        "train-adam",
        family="lopt_training",
        optimizer={"kind": "learnable_adam"},
        inner_task={"family": "mlp", "hidden_size": 16, "num_layers": 1, "batch_size": 32, **DIGITS, **RELU},
        num_steps=20,
        outer_batch_size=1,
    ),
    _task("noisy-quadratic", family="noisy_quadratic", dimension=1000, decay=1.0, batch_size=10.0),
    _task("quadratic", family="quadratic", dimension=50),
    _task("rosenbrock", family="functions_2d", function="rosenbrock"),
    _task(
        "logistic-regression",
        family="logistic_regression",
        num_features=20,
        num_examples=500,
        separable=False,
        batch_size=50,
    ),
    _task("minibatch-quadratic", family="minibatch_quadratic", dimension=50, batch_size=10, num_examples=500),
    _task("valley", family="slow_convergence", problem="valley", dimension=20),
    _task(
        "sum-of-problems",
        family="sum_of_problems",
        parts=[{"family": "quadratic", "dimension": 10}, {"family": "functions_2d", "function": "beale"}],
        normalized=True,
    ),
)
