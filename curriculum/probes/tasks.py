"""The tasks that probes train by default: small, on data that need no download."""

from __future__ import annotations

from typing import Any

from task_generator.task_config import TaskConfig, parse_task_config

_RELU = {"activation": "relu", "initializer": "truncated_normal", "init_scale": 1.0}
_DIGITS = {"dataset": "digits", "image_size": 8}


def mlp(*, hidden_size: int = 32, num_layers: int = 2, batch_size: int = 64, **fields: Any) -> TaskConfig:
    """Returns a fully connected classifier of the digits."""
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "batch_size": batch_size}
    return parse_task_config({"family": {"family": "mlp", **sizes, **_DIGITS, **_RELU, **fields}})


def conv(*, hidden_size: int = 8, num_layers: int = 2, batch_size: int = 32) -> TaskConfig:
    """Returns a convolutional classifier of the digits."""
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "batch_size": batch_size}
    return parse_task_config(
        {"family": {"family": "conv", "num_stride_2_layers": 1, **sizes, **_DIGITS, **_RELU}}
    )


def autoencoder(*, hidden_size: int = 16, batch_size: int = 32) -> TaskConfig:
    """Returns an auto-encoder of the digits."""
    family = {
        "family": "autoencoder",
        "hidden_sizes": (32, hidden_size, 32),
        "batch_size": batch_size,
        "log_loss": False,
        "center_data": False,
        "constrain_output": True,
    }
    return parse_task_config({"family": {**family, **_DIGITS, **_RELU}})


def transformer(*, head_size: int = 8, num_layers: int = 1, batch_size: int = 8) -> TaskConfig:
    """Returns a decoder of English bytes."""
    family = {
        "family": "transformer_lm",
        "head_size": head_size,
        "num_heads": 2,
        "num_layers": num_layers,
        "dropout_rate": 0.0,
        "positions": "learned",
        "sequence_length": 16,
        "batch_size": batch_size,
        "dataset": "english_bytes",
    }
    return parse_task_config({"family": family})


def quadratic(*, dimension: int = 20) -> TaskConfig:
    """Returns bowls with random couplings, another for every seed."""
    return parse_task_config({"family": {"family": "quadratic", "dimension": dimension}})
