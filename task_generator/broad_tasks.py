"""Twenty small tasks of thirteen families, on data that need no download: the distribution `broad`.

Small enough that every outer step can look at all of them on two cores. None is a task of `embedded24`: networks
are narrower, most images smaller, texts shorter. Eight of its families have no task here, so that an evaluation
says what an optimizer does on kinds that it has never seen: `vit`, `resnet`, `maf`, `algorithmic`,
`lopt_training`, `minibatch_quadratic`, `slow_convergence` and `sum_of_problems`.
"""

from __future__ import annotations

from typing import Any

from task_generator.task_config import TaskConfig, parse_task_config

START = {"initializer": "truncated_normal", "init_scale": 1.0}
RELU = {"activation": "relu", **START}
TANH = {"activation": "tanh", **START}
GELU = {"activation": "gelu", **START}
DIGITS = {"dataset": "digits", "image_size": 8}
PHOTOS = {"dataset": "photo_patches", "image_size": 8}
BYTES = {"dataset": "english_bytes", **START}


def _task(*augmentations: dict[str, Any], **family: Any) -> TaskConfig:
    return parse_task_config({"family": family, "augmentations": augmentations})


BROAD_TASKS: tuple[TaskConfig, ...] = (
    _task(family="mlp", hidden_size=32, num_layers=1, batch_size=64, **DIGITS, **RELU),
    _task(family="mlp", hidden_size=24, num_layers=2, batch_size=32, **PHOTOS, **TANH),
    _task(
        {"augmentation": "reparametrize", "level": "tensor", "low": 0.1, "high": 10.0},
        family="mlp",
        hidden_size=16,
        num_layers=3,
        batch_size=64,
        **DIGITS,
        **GELU,
    ),
    _task(family="conv", hidden_sizes=(8, 16), num_stride_2_layers=2, batch_size=32, **PHOTOS, **RELU),
    _task(family="conv", hidden_sizes=(8, 8, 8), num_stride_2_layers=1, batch_size=16, **DIGITS, **GELU),
    _task(
        family="autoencoder",
        hidden_sizes=(32, 8, 32),
        batch_size=32,
        log_loss=False,
        center_data=False,
        constrain_output=True,
        **DIGITS,
        **RELU,
    ),
    _task(
        family="autoencoder",
        hidden_sizes=(16,),
        batch_size=32,
        log_loss=True,
        center_data=True,
        constrain_output=False,
        **PHOTOS,
        **TANH,
    ),
    _task(
        family="vae",
        enc_hidden_size=32,
        enc_num_layers=1,
        dec_hidden_size=32,
        dec_num_layers=1,
        latent_size=4,
        batch_size=32,
        center_data=False,
        per_dim_loss=True,
        **DIGITS,
        **RELU,
    ),
    _task(
        family="vae",
        enc_hidden_size=16,
        enc_num_layers=2,
        dec_hidden_size=16,
        dec_num_layers=1,
        latent_size=8,
        batch_size=32,
        center_data=True,
        per_dim_loss=True,
        **PHOTOS,
        **TANH,
    ),
    _task(
        family="mlp_mixer",
        hidden_dim=16,
        num_blocks=1,
        tokens_mlp_dim=16,
        channels_mlp_dim=32,
        patch_size=2,
        batch_size=32,
        **DIGITS,
    ),
    _task(
        family="real_nvp", hidden_size=32, num_layers=1, num_flow_layers=2, batch_size=32, **DIGITS, **RELU
    ),
    _task(
        family="rnn_lm", cell="gru", hidden_size=32, embed_size=16, sequence_length=16, batch_size=16, **BYTES
    ),
    _task(
        family="rnn_lm", cell="lstm", hidden_size=24, embed_size=16, sequence_length=16, batch_size=8, **BYTES
    ),
    _task(
        family="text_classification",
        cell="lstm",
        hidden_size=16,
        embed_size=8,
        num_classes=8,
        sequence_length=16,
        batch_size=32,
        pooling="mean",
        **BYTES,
    ),
    _task(
        family="transformer_lm",
        head_size=8,
        num_heads=2,
        num_layers=1,
        dropout_rate=0.0,
        positions="learned",
        sequence_length=16,
        batch_size=8,
        dataset="english_bytes",
    ),
    _task(family="noisy_quadratic", dimension=100, decay=1.0, batch_size=32.0),
    _task(family="quadratic", dimension=20),
    _task(family="quadratic", dimension=100, noisy=True),
    _task(family="functions_2d", function="beale"),
    _task(family="logistic_regression", num_features=10, num_examples=200, separable=True, batch_size=20),
)
