"""Re-parameterised tasks: the same function, gradients divided by the scales, steps of another effect."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from task_generator import TaskConfig
from task_generator.augmentations import ReparametrizeConfig
from task_generator.families import MlpConfig

MLP = MlpConfig(hidden_size=5, num_layers=1, image_size=4, batch_size=8, dataset="digits", activation="tanh")
KEY = jax.random.key(0)


def _pair(level: Any) -> tuple[Any, Any, Any]:
    """The plain task, the same one re-parameterised, and the latter's scales."""
    config = ReparametrizeConfig(level=level, low=0.01, high=100.0)
    family = TaskConfig(family=MLP, augmentations=(config,)).build()
    dynamic = family.sample_dynamic(KEY)
    return MLP.build().task(dynamic.inner), family.task(dynamic), dynamic.scales


@pytest.mark.parametrize(
    ("level", "count"), [("global", 1), ("tensor", 4), ("parameter", 16 * 5 + 5 + 5 * 10 + 10)]
)
def test_the_level_decides_how_many_scales_there_are(level: str, count: int) -> None:
    _, _, scales = _pair(level)
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(scales)])
    assert len(np.unique(values)) == count
    assert values.min() >= 0.01 * (1 - 1e-5)
    assert values.max() <= 100 * (1 + 1e-5)


@pytest.mark.parametrize("level", ["global", "tensor", "parameter"])
def test_the_function_is_unchanged_and_gradients_are_divided_by_the_scales(level: str) -> None:
    plain, scaled, scales = _pair(level)
    batch = plain.batch(KEY)
    state, scaled_state = plain.init(KEY), scaled.init(KEY)
    loss, grads = jax.value_and_grad(lambda p: plain.loss(state._replace(params=p), KEY, batch)[0])(
        state.params
    )
    scaled_loss, scaled_grads = jax.value_and_grad(
        lambda p: scaled.loss(scaled_state._replace(params=p), KEY, batch)[0]
    )(scaled_state.params)
    assert float(scaled_loss) == pytest.approx(float(loss), rel=1e-5)
    assert not np.allclose(scaled_state.params["Dense_0"]["kernel"], state.params["Dense_0"]["kernel"])
    jax.tree.map(
        lambda g, s, c: np.testing.assert_allclose(s * c, np.asarray(g), rtol=1e-3, atol=1e-6),
        grads,
        jax.tree.map(np.asarray, scaled_grads),
        jax.tree.map(np.asarray, scales),
    )


def test_a_step_of_equal_size_has_another_effect() -> None:
    plain, scaled, _ = _pair("tensor")
    batch = plain.batch(KEY)

    def after_sign_step(task: Any) -> float:
        state = task.init(KEY)
        grads = jax.grad(lambda p: task.loss(state._replace(params=p), KEY, batch)[0])(state.params)
        params = jax.tree.map(lambda p, g: p - 0.01 * jnp.sign(g), state.params, grads)
        return float(task.loss(state._replace(params=params), KEY, batch)[0])

    assert abs(after_sign_step(plain) - after_sign_step(scaled)) > 1e-4


def test_the_state_after_a_loss_keeps_the_scaled_parameters() -> None:
    _, scaled, _ = _pair("parameter")
    state = scaled.init(KEY)
    _, after = scaled.loss(state, KEY, scaled.batch(KEY))
    jax.tree.map(np.testing.assert_array_equal, state.params, after.params)


def test_level_none_is_the_family_itself() -> None:
    family = MLP.build()
    assert ReparametrizeConfig(level="none", low=0.1, high=10.0).apply(family) is family


def test_the_prior_has_the_papers_seven_slots_and_three_ranges() -> None:
    rng = np.random.default_rng(0)
    draws = [ReparametrizeConfig.sample(rng) for _ in range(1400)]
    levels = ["none" if draw is None else draw.level for draw in draws]
    # 2/7, 2/7, 2/7 and 1/7 of 1400; the standard deviation is at most 17.
    for level, expected in {"none": 400, "global": 400, "tensor": 400, "parameter": 200}.items():
        assert abs(levels.count(level) - expected) < 70
    ranges = {(draw.low, draw.high) for draw in draws if draw is not None}
    assert ranges == {(0.001, 1000.0), (0.01, 100.0), (0.1, 10.0)}


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(ValueError, match="`low` must not exceed `high`"):
        ReparametrizeConfig(level="global", low=10.0, high=0.1)
