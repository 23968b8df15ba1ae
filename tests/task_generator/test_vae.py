"""The bound against closed forms and exact bin masses, the latent's distribution, the normaliser, learning."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilation import AS_FOR_USERS
from pydantic import ValidationError
from scipy import integrate, stats

from lopt.config import derive
from lopt.inner_loop import init_inner, inner_step
from lopt.types import TaskState
from task_generator import TaskConfig
from task_generator.datasets.images import ImageSplit
from task_generator.families.vae import BIN, VaeConfig, VaeDynamic, VaeOutputs, kl_to_standard_normal

EXAMPLE = VaeConfig.example()


def _dynamic(*, centred: bool, per_dim: bool) -> VaeDynamic:
    drawn = EXAMPLE.sample_dynamic(jax.random.key(0))
    return VaeDynamic(drawn.network, jnp.asarray(centred), jnp.asarray(per_dim))


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -0.7), (-0.4, 0.9)])
def test_the_divergence_is_the_integral_that_defines_it(mean: float, log_std: float) -> None:
    q = stats.norm(mean, math.exp(log_std))
    expected = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), -30, 30)[0]
    found = kl_to_standard_normal(jnp.float32(mean), jnp.float32(log_std))
    assert float(found) == pytest.approx(expected, abs=1e-6)


def _mean_nats(config: VaeConfig, level: int, std: float, *, centred: bool) -> float:
    """Returns the loss per pixel of level/255 under N(0.5, std), averaged over a grid of the bin's interior."""
    offsets = (np.arange(4096) + 0.5) / 4096 - 0.5
    shape = (len(offsets), config.input_size)
    images = jnp.full((len(offsets), config.image_size, config.image_size, 1), level / 255, jnp.float32)
    mean, log_std = (0.0, math.log(2 * std)) if centred else (0.5, math.log(std))
    latents = jnp.zeros((len(offsets), config.latent_size))
    outputs = VaeOutputs(
        latents,
        latents,
        jnp.full(shape, mean),
        jnp.full(shape, log_std),
        jnp.broadcast_to(jnp.asarray(offsets, jnp.float32)[:, None], shape),
    )
    batch = ImageSplit(images, jnp.zeros(len(offsets), jnp.int32))
    return float(config.loss(outputs, batch, _dynamic(centred=centred, per_dim=True)))


@pytest.mark.parametrize("std", [0.0005, 0.003, 0.02, 0.3])
@pytest.mark.parametrize("centred", [False, True])
def test_the_likelihood_bounds_the_mass_of_the_levels_bin(std: float, centred: bool) -> None:
    config = derive(EXAMPLE, image_size=2)
    level = 128  # half a level above the mean
    pixel = float(np.float32(level / 255))  # at the smallest deviation, its rounding is seen
    edges = [pixel + side * BIN for side in (-0.5, 0.5)]
    exact = -math.log(np.diff(stats.norm.cdf(edges, 0.5, std))[0])
    found = _mean_nats(config, level, std, centred=centred)
    # The mean over the bin in closed form: E(x − m)² is the squared distance of its centre plus bin²/12.
    square = (pixel - 0.5) ** 2 + BIN**2 / 12
    closed = 0.5 * math.log(2 * math.pi) + math.log(std / BIN) + square / (2 * std**2)
    assert found == pytest.approx(closed, rel=1e-5)
    assert (
        found * (1 + 1e-6) > exact > 0
    )  # Jensen's inequality: never fewer nats than the code of levels needs
    if std > 5 * BIN:
        assert found == pytest.approx(exact, rel=1e-3)  # and nearly as few where the density is flat


def _constant_model(config: VaeConfig, images: np.ndarray, *, centred: bool) -> dict[str, object]:
    """Returns parameters that ignore the input: latents as the prior's, pixels with the data's two moments."""
    shapes = jax.eval_shape(
        config.build().task(_dynamic(centred=False, per_dim=True)).init, jax.random.key(0)
    )
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes.params)
    flat = images.reshape(len(images), -1).astype(np.float64) * (2 if centred else 1) - centred
    width = 2 * BIN if centred else BIN
    bias = np.concatenate([flat.mean(0), 0.5 * np.log(flat.var(0) + width**2 / 12)])
    params["decoder"]["Dense_1"]["bias"] = jnp.asarray(bias, jnp.float32)
    return params


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("per_dim", [False, True])
def test_the_best_model_without_latents_has_a_normalised_loss_of_one(centred: bool, per_dim: bool) -> None:
    family = EXAMPLE.build()
    train = family.data.images.train  # type: ignore[attr-defined]
    images = np.asarray(train.images, np.float64) / 255
    batch = ImageSplit(jnp.asarray(images, jnp.float32), train.labels)
    task = family.task(_dynamic(centred=centred, per_dim=per_dim))
    params = _constant_model(EXAMPLE, images, centred=centred)

    @jax.jit
    def normalized(params: object) -> jax.Array:
        return task.normalize(task.loss(TaskState(params), jax.random.key(0), batch)[0])

    best = float(normalized(params))
    assert best == pytest.approx(1.0, abs=0.005)  # one uniform number per pixel: a deviation of 0.001
    bias = params["decoder"]["Dense_1"]["bias"]  # type: ignore[index]
    for change in (0.3, -0.3):
        wider = bias.at[EXAMPLE.input_size :].add(change)
        moved = bias.at[: EXAMPLE.input_size].add(jnp.exp(bias[EXAMPLE.input_size :]) * change)
        for other in (wider, moved):
            params["decoder"]["Dense_1"]["bias"] = other  # type: ignore[index]
            assert float(normalized(params)) > best + 0.005


def test_summing_over_pixels_multiplies_the_loss_and_its_normaliser() -> None:
    family = derive(EXAMPLE, activation="tanh", initializer="normal").build()
    key = jax.random.key(2)
    each, whole = (family.task(_dynamic(centred=True, per_dim=per_dim)) for per_dim in (True, False))
    state, batch = jax.jit(each.init)(key), each.batch(key)
    loss = [jax.jit(task.loss)(state, key, batch)[0] for task in (each, whole)]
    assert float(loss[1] / loss[0]) == pytest.approx(EXAMPLE.input_size, rel=1e-5)
    assert float(whole.normalize(loss[1])) == pytest.approx(float(each.normalize(loss[0])), rel=1e-5)


def test_latents_are_drawn_from_the_encoders_normal_and_offsets_from_the_bin() -> None:
    config = derive(EXAMPLE, image_size=2, latent_size=4, enc_num_layers=0, dec_num_layers=0)
    mean, log_std = 0.3, -0.5
    copy = jnp.concatenate([jnp.eye(4), jnp.zeros((4, 4))], axis=1)  # a pixel's mean is a latent
    params = {
        "encoder": {
            "Dense_0": {"kernel": jnp.zeros((4, 8)), "bias": jnp.array([mean] * 4 + [log_std] * 4)},
        },
        "decoder": {"Dense_0": {"kernel": copy, "bias": jnp.zeros(8)}},
    }
    images = jnp.zeros((8192, 4))
    out, again, other = (
        config.network().apply({"params": params}, images, jnp.tanh, rngs={"noise": jax.random.key(seed)})
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(out.pixel_mean, again.pixel_mean)
    assert float(jnp.abs(out.pixel_mean - other.pixel_mean).max()) > 1
    normal = (np.asarray(out.pixel_mean) - mean) / math.exp(log_std)
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(np.asarray(out.offset).ravel(), stats.uniform(-0.5, 1).cdf).pvalue > 1e-3
    # All eight numbers of an image are independent: correlations of 8192 pairs deviate by 0.011.
    correlations = np.corrcoef(np.concatenate([normal, out.offset], axis=1).T) - np.eye(8)
    assert np.abs(correlations).max() < 0.055


def test_the_decoders_outputs_are_clipped() -> None:
    config = derive(EXAMPLE, image_size=2, latent_size=1, enc_num_layers=0, dec_num_layers=0)
    params = {
        "encoder": {"Dense_0": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)}},
        "decoder": {"Dense_0": {"kernel": jnp.zeros((1, 8)), "bias": jnp.array([50.0] * 4 + [-50.0] * 4)}},
    }
    out = config.network().apply(
        {"params": params}, jnp.zeros((1, 4)), jnp.tanh, rngs={"noise": jax.random.key(0)}
    )
    np.testing.assert_array_equal(out.pixel_mean, np.full((1, 4), 10.0))
    np.testing.assert_array_equal(out.pixel_log_std, np.full((1, 4), -10.0))


def test_training_beats_every_model_without_latents() -> None:
    config = derive(EXAMPLE, activation="relu", initializer="normal", init_scale=1.0, center_data=True)
    task = config.build().task(config.sample_dynamic(jax.random.key(0)))
    optimizer = optax.with_extra_args_support(optax.adam(3e-3))
    keys = jax.random.split(jax.random.key(1), 1500)

    def train() -> tuple[jax.Array, jax.Array]:
        start = init_inner(task, optimizer, keys[0])
        state, losses = jax.lax.scan(lambda s, key: inner_step(task, optimizer, s, key), start, keys)
        held_out = [task.loss(state.task_state, key, task.batch(key, "inner_valid"))[0] for key in keys[:4]]
        return task.normalize(losses), task.normalize(jnp.stack(held_out))

    with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction relies on it
        losses, held_out = jax.jit(train, compiler_options=AS_FOR_USERS)()
    assert float(losses[:5].mean()) > 1.0
    assert 0 < float(held_out.min()) < float(held_out.max()) < 1.0


def test_low_precision_parameters_keep_the_loss_in_float32() -> None:
    config = derive(EXAMPLE, activation="tanh", initializer="normal")
    task = config.build().task(_dynamic(centred=True, per_dim=True))
    key = jax.random.key(0)
    state, batch = jax.jit(task.init)(key), task.batch(key)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
    low = ImageSplit(batch.images.astype(jnp.bfloat16), batch.labels)
    exact = jax.jit(lambda state: task.loss(state, key, batch)[0])(state)
    loss, grads = jax.jit(jax.value_and_grad(lambda p: task.loss(TaskState(p), key, low)[0]))(half)
    assert loss.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}
    assert float(loss) == pytest.approx(float(exact), rel=0.05)


def test_switches_can_be_fixed_and_are_shown() -> None:
    config = derive(EXAMPLE, center_data=False, per_dim_loss=True)
    draws = [config.sample_dynamic(jax.random.key(seed)) for seed in range(8)]
    assert {(bool(d.center_data), bool(d.per_dim_loss)) for d in draws} == {(False, True)}
    free = [EXAMPLE.sample_dynamic(jax.random.key(seed)) for seed in range(32)]
    assert len({(bool(d.center_data), bool(d.per_dim_loss)) for d in free}) == 4
    assert config.label() == "vae 1x32-8-1x32 · digits 8px · batch 64 · no center data · per dim loss"
    assert config.overrides_could_be_sampled()
    assert not derive(config, activation="elu").overrides_could_be_sampled()
    assert TaskConfig(family=config).fingerprint() != TaskConfig(family=EXAMPLE).fingerprint()
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        derive(EXAMPLE, latent_size=0)
