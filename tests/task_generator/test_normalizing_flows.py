"""Flows: determinants are those of the Jacobian, inverses give the data back, densities integrate to one."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from lopt.config import derive
from lopt.inner_loop import train_curve
from task_generator import TaskConfig
from task_generator.datasets.images import load
from task_generator.dynamic import sample_network_dynamic
from task_generator.families.network import variable_shapes
from task_generator.families.normalizing_flow import (
    LOGIT_MARGIN,
    MafConfig,
    NormalizingFlowConfig,
    RealNvpConfig,
    negative_log_likelihood,
    stretch,
)
from task_generator.networks.normalizing_flow import (
    LOG_SCALE_BOUND,
    AutoregressiveFlow,
    CouplingFlow,
    Made,
    spread_degrees,
)

SIZE = 5
Flow = AutoregressiveFlow | CouplingFlow
flows = pytest.mark.parametrize(
    "flow",
    [
        AutoregressiveFlow(1, (7, 3)),
        AutoregressiveFlow(3, (8,)),
        AutoregressiveFlow(2, ()),
        CouplingFlow(3, (6,), SIZE),
        CouplingFlow(2, (6, 4), SIZE),
    ],
    ids=["maf 1", "maf 3", "maf linear", "nvp 3", "nvp 2"],
)


def _random_params(flow: Any, size: int = SIZE, scale: float = 0.7) -> Any:
    """Every leaf normal: also those that start at zero."""
    shapes, _ = variable_shapes(flow, jax.ShapeDtypeStruct((1, size), jnp.float32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), shapes)


def _jacobian(flow: Flow, params: Any, x: np.ndarray) -> np.ndarray:
    """Of one example's noise by its data."""
    fn = lambda x: flow.apply({"params": params}, x[None], jnp.tanh)[0][0]
    return np.asarray(jax.jit(jax.jacfwd(fn))(jnp.asarray(x)), np.float64)


@flows
def test_the_log_determinant_is_that_of_the_jacobian(flow: Flow) -> None:
    params = _random_params(flow)
    x = np.random.default_rng(1).normal(size=(4, SIZE)).astype(np.float32)
    _, log_det = flow.apply({"params": params}, x, jnp.tanh)
    for example, claimed in zip(x, np.asarray(log_det), strict=True):
        sign, expected = np.linalg.slogdet(_jacobian(flow, params, example))
        assert abs(sign) == 1
        assert abs(expected) > 0.05  # a flow that scales nothing would prove nothing
        assert claimed == pytest.approx(expected, abs=2e-5, rel=2e-5)


@flows
def test_the_inverse_of_the_noise_is_the_data(flow: Flow) -> None:
    params = _random_params(flow, scale=0.5)
    x = np.random.default_rng(1).normal(size=(6, SIZE)).astype(np.float32)
    noise, _ = flow.apply({"params": params}, x, jnp.tanh)
    assert float(jnp.abs(noise - x).max()) > 0.1
    back = jax.jit(lambda u: flow.apply({"params": params}, u, jnp.tanh, method="inverse"))(noise)
    np.testing.assert_allclose(back, x, atol=2e-5)


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("hidden_sizes", [(), (3,), (9, 4)])
def test_a_masked_network_reads_exactly_what_comes_before(
    is_reversed: bool, hidden_sizes: tuple[int, ...]
) -> None:
    made = Made(hidden_sizes, is_reversed)
    params = _random_params(made)
    outputs = jax.jit(jax.jacfwd(lambda x: made.apply({"params": params}, x[None], jnp.tanh)))
    for jacobian in outputs(jnp.linspace(-1, 1, SIZE)):
        reads = np.asarray(jacobian[0]) != 0  # [output, input]
        before = np.tri(SIZE, k=-1, dtype=bool)
        before = before[::-1, ::-1] if is_reversed else before
        assert not (reads & ~before).any()
        # With fewer units than degrees some outputs share what they read; the last one reads all.
        assert reads.any(axis=1).sum() >= min([SIZE - 1, *hidden_sizes])
        assert reads[0 if is_reversed else SIZE - 1].sum() == SIZE - 1


@pytest.mark.parametrize(("count", "num_inputs"), [(3, 3), (4, 9), (20, 5), (1, 2), (128, 3072)])
def test_degrees_are_spread_evenly_and_end_at_the_last_that_is_read(count: int, num_inputs: int) -> None:
    degrees = np.asarray(spread_degrees(count, num_inputs))
    assert degrees.min() >= 0
    assert degrees[-1] == num_inputs - 2
    largest = math.ceil((num_inputs - 1) / count)
    assert np.diff(degrees).min(initial=0) >= 0
    assert np.diff(degrees).max(initial=0) <= largest
    uses = np.bincount(degrees, minlength=num_inputs - 1)
    assert uses.max() <= math.ceil(count / (num_inputs - 1))


def test_a_stack_alternates_its_order() -> None:
    x = np.linspace(-1, 1, SIZE, dtype=np.float32)
    one, two = AutoregressiveFlow(1, (8,)), AutoregressiveFlow(2, (8,))
    lower = _jacobian(one, _random_params(one), x)
    assert not np.triu(lower, 1).any()
    mixed = _jacobian(two, _random_params(two), x)
    assert np.triu(mixed, 1).any()
    assert np.tril(mixed, -1).any()


def test_couplings_move_the_odd_numbers_then_the_even_ones() -> None:
    x = np.linspace(-1, 1, SIZE, dtype=np.float32)
    one, two = CouplingFlow(1, (6,), SIZE), CouplingFlow(2, (6,), SIZE)
    even = np.asarray(one.apply({"params": _random_params(one)}, x[None], jnp.tanh)[0])[0, :3]
    np.testing.assert_array_equal(even, x[0::2])
    both = np.asarray(two.apply({"params": _random_params(two)}, x[None], jnp.tanh)[0])[0]
    assert (np.abs(both[:3] - x[0::2]) > 1e-3).all()
    assert (np.abs(both[3:] - x[1::2]) > 1e-3).all()


def test_extreme_weights_stay_within_the_bound_of_the_scales() -> None:
    flow = CouplingFlow(2, (6,), SIZE)
    params = jax.tree.map(lambda leaf: 1e6 * leaf, _random_params(flow))
    _, log_det = flow.apply({"params": params}, jnp.ones((1, SIZE)), jnp.tanh)
    assert float(jnp.abs(log_det[0])) <= LOG_SCALE_BOUND * SIZE
    assert float(jnp.abs(log_det[0])) >= LOG_SCALE_BOUND  # an odd number of scales, all at the bound


def _density(flow: Flow, params: Any, pixels: np.ndarray) -> np.ndarray:
    """Returns p [n] at vectors [n, d] on a scale of 0 to 1, from the loss of one at a time."""

    def nats_per_pixel(y: jax.Array) -> jax.Array:
        outputs = flow.apply({"params": params}, stretch(y[None])[0], jnp.tanh)
        return negative_log_likelihood(outputs, y[None])

    losses = np.asarray(jax.jit(jax.vmap(nats_per_pixel))(pixels.astype(np.float32)), np.float64)
    return np.exp(-pixels.shape[1] * (losses - math.log(256)))


@pytest.mark.parametrize(
    ("flow", "size"),
    [(AutoregressiveFlow(2, (4,)), 1), (AutoregressiveFlow(2, (4,)), 2), (CouplingFlow(2, (4,), 2), 2)],
    ids=["maf 1d", "maf 2d", "nvp 2d"],
)
def test_the_density_integrates_to_one(flow: Flow, size: int) -> None:
    """Over all that the logit stretches: a margin beyond 0 and 1 included."""
    margin = LOGIT_MARGIN / (1 - 2 * LOGIT_MARGIN)
    points = 20_000 if size == 1 else 1_000
    width = (1 + 2 * margin) / points
    axis = -margin + width * (np.arange(points) + 0.5)
    grid = np.stack(np.meshgrid(*[axis] * size), axis=-1).reshape(-1, size)
    density = _density(flow, _random_params(flow, size, 0.4), grid)
    assert density.max() > 2 * density.mean()  # not flat
    assert density.sum() * width**size == pytest.approx(1.0, abs=1e-3)


def test_the_identity_has_the_likelihood_of_a_logistic_normal() -> None:
    pixels = np.random.default_rng(0).uniform(size=(3, 4))
    inside = LOGIT_MARGIN + (1 - 2 * LOGIT_MARGIN) * pixels
    x = np.log(inside / (1 - inside))
    log_p = scipy.stats.norm.logpdf(x) + np.log((1 - 2 * LOGIT_MARGIN) / (inside * (1 - inside)))
    reals, _ = stretch(jnp.asarray(pixels, jnp.float32))
    np.testing.assert_allclose(reals, x, atol=1e-5)
    loss = negative_log_likelihood((reals, jnp.zeros(3)), jnp.asarray(pixels, jnp.float32))
    assert float(loss) == pytest.approx(math.log(256) - log_p.mean(), abs=1e-5)


@pytest.mark.parametrize("family", [MafConfig, RealNvpConfig])
def test_training_brings_a_flow_well_below_the_uniform_code(family: type[NormalizingFlowConfig]) -> None:
    config = derive(family.example(), activation="tanh", initializer="normal", init_scale=1.0)
    task = TaskConfig(family=config).build().task(sample_network_dynamic(jax.random.key(0)))
    run = lambda key: train_curve(
        task, optax.adam(3e-3), key, eval_every=300, num_points=2, splits=("test",), num_eval_batches=8
    )
    with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction relies on it
        curve = jax.jit(run)(jax.random.key(1)).losses["test"]
    start, end = (float(task.normalize(loss)) for loss in curve)
    assert 0.7 < start < 1.3
    assert 0.0 < end < start - 0.25


def test_dequantised_pixels_round_down_to_the_stored_bytes() -> None:
    config = derive(MafConfig.example(), batch_size=256)
    task = TaskConfig(family=config).build().task(sample_network_dynamic(jax.random.key(0)))
    key = jax.random.key(2)
    pixels = np.asarray(task.batch(key).images, np.float64)
    stored = np.rint(np.asarray(load("digits", 8).batch(key, "train", 256).images) * 255)
    np.testing.assert_array_equal(np.floor(pixels * 256), stored)
    noise = (pixels * 256 - stored).ravel()
    assert noise.min() >= 0
    assert noise.mean() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / noise.size))
    assert noise.var() == pytest.approx(1 / 12, abs=5 * math.sqrt(1 / 180 / noise.size))
