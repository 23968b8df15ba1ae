"""The fully connected nets of evaluation tasks: losses, normalisation, dropout, learned slopes; and the priors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pydantic import ValidationError

from lopt.config import derive
from lopt.types import TaskState
from task_generator import TaskConfig, parse_task_config
from task_generator.dynamic import ACTIVATIONS
from task_generator.families.autoencoder import AutoencoderConfig
from task_generator.families.mlp import LHOPT_PRIOR, MlpConfig
from task_generator.losses import LossName, chance_loss, classification_loss
from task_generator.nn import Mlp
from task_generator.nn_normalization import BatchNorm, LayerNorm

EXAMPLE = MlpConfig.example()
LOSSES: tuple[LossName, ...] = ("cross_entropy", "mse_onehot", "mae_onehot", "huber_onehot")


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_agree_with_their_definitions_in_float64(kind: LossName) -> None:
    rng = np.random.default_rng(0)
    outputs, labels = 3 * rng.normal(size=(64, 5)), rng.integers(5, size=64)
    error = np.abs(outputs - np.eye(5)[labels])
    expected = {
        "cross_entropy": np.log(np.exp(outputs).sum(1)) - outputs[np.arange(64), labels],
        "mse_onehot": error**2,
        "mae_onehot": error,
        "huber_onehot": np.where(error < 1, error**2 / 2, error - 0.5),
    }[kind].mean()
    found = classification_loss(kind, jnp.asarray(outputs, jnp.float32), jnp.asarray(labels))
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize("kind", LOSSES)
def test_chance_is_the_least_loss_of_a_constant(kind: LossName, num_classes: int) -> None:
    labels = jnp.arange(num_classes)  # balanced
    # One constant for all classes suffices: the losses are convex, and the classes interchangeable.
    constants = jnp.linspace(-1, 1, 2001)
    losses = jax.vmap(lambda c: classification_loss(kind, jnp.full((num_classes,) * 2, c), labels))(constants)
    assert float(losses.min()) == pytest.approx(chance_loss(kind, num_classes), rel=1e-5)
    task = derive(EXAMPLE, loss_kind=kind).build().task(EXAMPLE.sample_dynamic(jax.random.key(0)))
    assert float(task.normalize(jnp.float32(chance_loss(kind, 10)))) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_task_is_trained_on_the_loss_it_names(kind: LossName) -> None:
    config = derive(EXAMPLE, loss_kind=kind, activation="relu", initializer="normal", num_layers=1)
    key = jax.random.key(0)
    task = config.build().task(config.sample_dynamic(key))
    state, batch = jax.jit(task.init)(key), task.batch(key)
    outputs = config.network().apply({"params": state.params}, batch.images, jax.nn.relu)
    expected = classification_loss(kind, outputs, batch.labels)
    assert float(task.loss(state, key, batch)[0]) == pytest.approx(float(expected), rel=1e-6)


def _norm(kind: str, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    axes: Any = -1 if kind == "layer_norm" else tuple(range(x.ndim - 1))
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(16, 6), (4, 3, 3, 6)])
@pytest.mark.parametrize("kind", ["layer_norm", "batch_norm"])
def test_normalisation_agrees_with_float64_in_both_precisions(
    kind: str, shape: tuple[int, ...], dtype: Any
) -> None:
    rng = np.random.default_rng(1)
    x = jnp.asarray(5 + 2 * rng.normal(size=shape), dtype)
    params = {"scale": jnp.asarray(rng.normal(size=6), dtype), "bias": jnp.asarray(rng.normal(size=6), dtype)}
    module = LayerNorm() if kind == "layer_norm" else BatchNorm()
    stats = {} if kind == "layer_norm" else {"batch_stats": {"mean": jnp.zeros(6), "var": jnp.ones(6)}}
    found, updated = module.apply({"params": params, **stats}, x, mutable=list(stats))
    assert found.dtype == dtype
    exact = {name: np.asarray(value, np.float64) for name, value in params.items()}
    expected = _norm(kind, np.asarray(x, np.float64), exact["scale"], exact["bias"])
    # One rounding of the result: half an ulp of bfloat16 is 2⁻⁹ of it.
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == jnp.float32 else {"rtol": 2.0**-8, "atol": 1e-5}
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, **tolerance)
    if stats:
        flat = np.asarray(x, np.float64).reshape(-1, 6)
        assert updated["batch_stats"]["mean"].dtype == jnp.float32
        np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * flat.mean(0), rtol=1e-5)
        np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * flat.var(0), rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "layer_norm", "batch_norm"])
def test_a_hidden_layer_normalises_before_its_activation(kind: str) -> None:
    config = derive(EXAMPLE, normalization=kind, num_layers=2, hidden_size=7, activation="tanh")
    key = jax.random.key(0)
    task = config.build().task(config.sample_dynamic(key))
    state, batch = jax.jit(task.init)(key), task.batch(key)
    loss, after = jax.jit(task.loss)(state, key, batch)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params)
    x = np.asarray(batch.images, np.float64).reshape(config.batch_size, -1)
    name = {"layer_norm": "LayerNorm", "batch_norm": "BatchNorm"}.get(kind, "")
    for layer in range(2):
        x = x @ params[f"Dense_{layer}"]["kernel"] + params[f"Dense_{layer}"]["bias"]
        if name:
            norm = params[f"{name}_{layer}"]
            assert (norm["scale"] == 1).all()
            x = _norm(kind, x, norm["scale"], norm["bias"])
        x = np.tanh(x)
    logits = x @ params["Dense_2"]["kernel"] + params["Dense_2"]["bias"]
    labels = np.asarray(batch.labels)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-4)
    assert bool(jax.tree.leaves(after.model_state)) == (kind == "batch_norm")
    if kind == "batch_norm":  # kept, and moved by every loss; the loss itself never reads them
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.model_state, after.model_state)
        assert all(jax.tree.leaves(moved))
        assert float(jax.jit(task.loss)(after, key, batch)[0]) == float(loss)


def test_dropout_leaves_out_its_share_before_the_activation_and_keeps_the_mean() -> None:
    net = Mlp((1000,), 1000, dropout_rate=0.8)
    params = {
        "Dense_0": {"kernel": jnp.ones((1, 1000)), "bias": jnp.zeros(1000)},
        "Dense_1": {"kernel": jnp.eye(1000), "bias": jnp.zeros(1000)},
    }
    run = jax.jit(
        lambda key: net.apply({"params": params}, jnp.ones((32, 1)), lambda x: x + 1.0, rngs={"dropout": key})
    )
    out, other = run(jax.random.key(0)), run(jax.random.key(1))
    # What is left out is 0 before the activation, hence 1 after it; what is kept is 1 / (1 − 0.8) before.
    assert set(np.round(np.unique(out), 4)) == {1.0, 6.0}
    dropped = np.mean(np.asarray(out) == 1.0)
    assert dropped == pytest.approx(0.8, abs=5 * np.sqrt(0.16 / out.size))
    assert (np.asarray(out) != np.asarray(other)).any()


def test_a_tasks_dropout_is_always_active_and_follows_the_loss_key() -> None:
    config = derive(EXAMPLE, dropout_rate=0.5, activation="relu", initializer="normal")
    key = jax.random.key(0)
    task = config.build().task(config.sample_dynamic(key))
    state = task.init(key)
    batch = task.batch(key, "test")
    run = jax.jit(lambda key: task.loss(state, key, batch)[0])
    assert float(run(key)) == float(run(key))
    assert float(run(key)) != float(run(jax.random.key(1)))


def test_the_learned_slope_starts_at_a_quarter_and_is_learned() -> None:
    config = derive(EXAMPLE, activation="prelu", initializer="normal", num_layers=1)
    key = jax.random.key(0)
    task = config.build().task(config.sample_dynamic(key))
    state, batch = jax.jit(task.init)(key), task.batch(key)
    params = state.params
    assert float(params["PReLU_0"]["negative_slope"]) == 0.25
    found, grads = jax.jit(jax.value_and_grad(lambda p: task.loss(TaskState(p), key, batch)[0]))(params)
    hidden = batch.images.reshape(config.batch_size, -1) @ params["Dense_0"]["kernel"]

    def loss(slope: jax.Array) -> jax.Array:
        logits = jnp.where(hidden > 0, hidden, slope * hidden) @ params["Dense_1"]["kernel"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    expected, derivative = jax.value_and_grad(loss)(jnp.float32(0.25))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert float(grads["PReLU_0"]["negative_slope"]) == pytest.approx(float(derivative), rel=1e-4)
    assert abs(float(derivative)) > 1e-4


def test_very_leaky_is_a_third() -> None:
    x = jnp.array([-3.0, 0.0, 2.0])
    np.testing.assert_allclose(ACTIVATIONS["very_leaky_relu"](x), [-1.0, 0.0, 2.0], rtol=1e-6)


VARIANTS = [
    {"normalization": "layer_norm"},
    {"normalization": "batch_norm", "activation": "prelu"},
    {"activation": "prelu", "num_layers": 0},
    {"dropout_rate": 0.5, "loss_kind": "mse_onehot"},
    {"activation": "prelu", "normalization": "layer_norm", "num_layers": 3, "hidden_size": 5},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_variants_are_counted_right_held_out_and_read_back(changes: dict[str, Any]) -> None:
    config = TaskConfig(family=derive(EXAMPLE, **changes))
    family = config.build()
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda k: family.task(family.sample_dynamic(k)).init(k).params, key)
    assert config.approximate_cost()["num_params"] == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert not config.family.overrides_could_be_sampled()
    assert parse_task_config(config.canonical_json()) == config
    for name, value in changes.items():
        if name in ("normalization", "activation", "loss_kind"):
            assert str(value) in config.label


@pytest.mark.parametrize("kind", ["layer_norm", pytest.param("batch_norm", marks=pytest.mark.slow)])
def test_vmapped_low_precision_parameters_equal_a_loop(kind: str) -> None:
    config = derive(
        EXAMPLE,
        normalization=kind,
        dropout_rate=0.2,
        activation="prelu",
        initializer="normal",
        hidden_size=16,
    )
    key = jax.random.key(0)
    task = config.build().task(config.sample_dynamic(key))
    batch = task.batch(key)
    low = batch._replace(images=batch.images.astype(jnp.bfloat16))
    states = jax.jit(jax.vmap(task.init))(jax.random.split(key, 2))
    states = states._replace(params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), states.params))

    def step(state: TaskState) -> Any:
        return jax.value_and_grad(lambda p: task.loss(state._replace(params=p), key, low), has_aux=True)(
            state.params
        )

    together = jax.jit(jax.vmap(step))(states)
    alone = jax.jit(step)
    for i in range(2):
        (loss, after), grads = alone(jax.tree.map(lambda x, i=i: x[i], states))
        assert loss.dtype == jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}
        assert {leaf.dtype for leaf in jax.tree.leaves(after.model_state)} <= {jnp.dtype(jnp.float32)}
        assert float(together[0][0][i]) == pytest.approx(float(loss), rel=0.02)  # bfloat16 sums in any order


def test_defaults_stay_out_of_the_json_and_the_prior_draws_none_of_it() -> None:
    added = {"normalization", "dropout_rate", "loss_kind", "hidden_sizes"}
    for config in (EXAMPLE, AutoencoderConfig.example()):
        assert not added & set(config.model_dump(mode="json"))
        assert not added & set(config.prior())
        assert config.overrides_could_be_sampled()


def test_lhopts_prior_draws_all_of_appendix_h_and_every_draw_is_valid() -> None:
    rng = np.random.default_rng(0)
    draws = [
        MlpConfig.model_validate({name: prior.sample(rng) for name, prior in LHOPT_PRIOR.items()})
        for _ in range(300)
    ]
    assert len({draw.activation for draw in draws}) == 5
    assert len({draw.normalization for draw in draws}) == 3
    assert {draw.loss_kind for draw in draws} == set(LOSSES)
    assert {draw.num_layers for draw in draws} == set(range(1, 8))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalization": "batch_norm", "batch_size": 1}, "batch_size=1 leaves nothing but zeros"),
        ({"normalization": "layer_norm", "hidden_size": 1}, "hidden_size=1 leaves nothing but zeros"),
        ({"dropout_rate": 1.0}, "less than 1"),
        ({"loss_kind": "hinge"}, "cross_entropy"),
        ({"activation": "leaky"}, "prelu"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        derive(EXAMPLE, **changes)


def test_autoencoders_take_a_width_per_layer() -> None:
    fields = {"image_size": 8, "batch_size": 8, "dataset": "digits", "hidden_sizes": [12, 3, 12]}
    config = AutoencoderConfig.model_validate(fields)
    assert (config.hidden_size, config.num_layers, config.widths) == (12, 3, (12, 3, 12))
    assert config.label().startswith("autoencoder 12x3x12 ·")
    assert not config.overrides_could_be_sampled()
    family = config.build()
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda k: family.task(family.sample_dynamic(k)).init(k).params, key)
    assert [shapes[f"Dense_{i}"]["kernel"].shape for i in range(4)] == [(64, 12), (12, 3), (3, 12), (12, 64)]
    assert config.approximate_cost()["num_params"] == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert AutoencoderConfig.model_validate_json(config.canonical_json()) == config
    # Equal widths are what the prior's two fields say: one task, one fingerprint.
    equal = AutoencoderConfig.model_validate(fields | {"hidden_sizes": [12, 12]})
    assert equal == AutoencoderConfig.model_validate(
        {name: value for name, value in fields.items() if name != "hidden_sizes"}
        | {"hidden_size": 12, "num_layers": 2}
    )
    assert equal.overrides_could_be_sampled()
    with pytest.raises(ValidationError, match="means hidden_size=12, got hidden_size=64"):
        AutoencoderConfig.model_validate(fields | {"hidden_size": 64})
    for wrong in ([], [0, 3], "12", [3.5, 2]):
        with pytest.raises(ValidationError, match="hidden_sizes"):
            AutoencoderConfig.model_validate(
                fields | {"hidden_sizes": wrong, "hidden_size": 3, "num_layers": 2}
            )
