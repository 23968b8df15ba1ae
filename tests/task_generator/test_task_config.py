"""A task as data: its label, its fingerprint, fixed fields, and mistakes that are named with their remedy."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from task_generator import TaskConfig, parse_task_config
from task_generator.augmentations import ReparametrizeConfig
from task_generator.families import ConvConfig, MlpConfig

MLP: dict[str, Any] = {
    "family": "mlp",
    "hidden_size": 32,
    "num_layers": 2,
    "image_size": 8,
    "batch_size": 64,
    "dataset": "digits",
}


def test_label_says_what_it_is() -> None:
    config = TaskConfig(
        family=MlpConfig(**MLP), augmentations=(ReparametrizeConfig(level="tensor", low=0.1, high=10.0),)
    )
    assert config.label == "mlp 2x32 · digits 8px · batch 64 · reparam tensor 0.1–10"


def test_a_changed_number_changes_the_fingerprint() -> None:
    one = parse_task_config({"family": MLP})
    other = parse_task_config({"family": {**MLP, "hidden_size": 33}})
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"family": {**MLP, "family": "mpl"}}, "unknown task family 'mpl'.*Did you mean 'mlp'"),
        ({"family": {**MLP, "dataset": "digit"}}, "dataset.*'digit'.*Did you mean 'digits'"),
        ({"family": {**MLP, "activation": "rlu"}}, "activation.*'rlu'.*Did you mean 'relu'"),
        ({"family": {**MLP, "batch_size": 0}}, "batch_size.*got 0"),
        ({"family": {**MLP, "widht": 3}}, "widht.*not permitted"),
        ({}, "`family`: Field required"),
        ({"family": {**MLP, "image_size": 64, "batch_size": 4096, "dataset": "photo_patches"}}, None),
        ({"family": {**MLP, "image_size": 65}}, "image_size.*got 65"),
        (
            {"family": MLP, "augmentations": [{"augmentation": "reparam"}]},
            "augmentation.*'reparam'.*Did you mean 'reparametrize'",
        ),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], message: str | None) -> None:
    if message is None:  # large, but possible
        parse_task_config(data)
        return
    with pytest.raises(ValueError, match=message):
        parse_task_config(data)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not a task configuration"):
        parse_task_config("{")


def test_strides_that_leave_no_pixel_are_refused_with_the_fix() -> None:
    fields = {"hidden_size": 4, "num_layers": 4, "num_stride_2_layers": 3, "image_size": 7}
    with pytest.raises(
        ValueError, match=r"image_size=7.*num_stride_2_layers=3.*at least 8.*Raise `image_size`"
    ):
        ConvConfig(**fields, batch_size=4, dataset="digits")
    ConvConfig(**{**fields, "num_layers": 2}, batch_size=4, dataset="digits")  # two strides happen, not three


def test_overrides_fix_what_would_be_drawn() -> None:
    fixed = {"activation": "sin", "initializer": "orthogonal", "init_scale": 1.5}
    family = parse_task_config({"family": {**MLP, "num_layers": 1, **fixed}}).build()
    key = jax.random.key(0)
    losses = set()
    for seed in range(4):
        task = family.task(family.sample_dynamic(jax.random.key(seed)))
        state = task.init(key)
        losses.add(float(task.loss(state, key, task.batch(key))[0]))
    assert len(losses) == 1
    kernel = np.asarray(state.params["Dense_0"]["kernel"])
    np.testing.assert_allclose(kernel.T @ kernel, 1.5**2 * np.eye(32), atol=1e-5)
