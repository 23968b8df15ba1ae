"""What each augmentation of App. C.5 claims. (`test_augmentation_contract.py`: what all of them must do.)"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from augmented_toys import KEY, assert_mean, same, shown, toy
from toy_tasks import vector

from lopt.inner_loop import init_inner, inner_step, mean_loss
from lopt.training_gradient import value_and_grad
from lopt.types import TaskState
from task_generator import TaskConfig
from task_generator.augmentations import (
    AugmentationConfig,
    DelayedGradientsConfig,
    ESGradientsConfig,
    LowPrecisionConfig,
    NormalizedGradientConfig,
    ReducedBatchConfig,
    SubsampledDirectionsConfig,
)
from task_generator.augmentations.normalized_gradient import normalized
from task_generator.families import MlpConfig

MLP = MlpConfig(
    hidden_size=6,
    num_layers=1,
    image_size=4,
    batch_size=16,
    dataset="digits",
    activation="tanh",
    initializer="normal",
)


def mlp(config: AugmentationConfig) -> tuple[Any, Any]:
    plain = MLP.build()
    dynamic = plain.sample_dynamic(KEY)
    return plain.task(dynamic), TaskConfig(family=MLP, augmentations=(config,)).build().task(dynamic)


# What the optimizer sees differs; the problem does not.
SAME_PROBLEM = [
    ESGradientsConfig(std=0.05, num_pairs=2),
    NormalizedGradientConfig(),
    SubsampledDirectionsConfig(num_directions=3, ignore_magnitude=False),
    SubsampledDirectionsConfig(num_directions=3, ignore_magnitude=True),
    DelayedGradientsConfig(delay=2),
]


@pytest.mark.parametrize("config", SAME_PROBLEM, ids=lambda c: c.label())
def test_the_loss_and_its_randomness_are_those_of_the_plain_problem(config: AugmentationConfig) -> None:
    plain, augmented = toy(config, noise=1.0)
    before, start = plain.init(KEY), augmented.init(KEY)
    same(start.params, before.params)
    loss, after, grads = shown(plain, before)
    seen_loss, seen_after, seen_grads = shown(augmented, start)
    evaluated, _ = augmented.loss(start, KEY, augmented.batch(KEY))
    assert float(seen_loss) == float(evaluated) == pytest.approx(float(loss), rel=1e-6)
    is_delayed = isinstance(config, DelayedGradientsConfig)
    after_state = seen_after.model_state.inner if is_delayed else seen_after.model_state
    jax.tree.map(np.testing.assert_allclose, after_state, after.model_state)
    same(seen_after.params, before.params)
    if not is_delayed:  # the first of which are exact
        assert not np.allclose(vector(seen_grads), vector(grads), rtol=1e-2)
    assert float(augmented.normalize(loss)) == float(plain.normalize(loss))


@pytest.mark.parametrize("config", SAME_PROBLEM, ids=lambda c: c.label())
def test_a_network_starts_as_the_same_function(config: AugmentationConfig) -> None:
    plain, augmented = mlp(config)
    batch = plain.batch(KEY)
    same(augmented.batch(KEY), batch)
    expected = plain.loss(plain.init(KEY), KEY, batch)[0]
    assert float(augmented.loss(augmented.init(KEY), KEY, batch)[0]) == float(expected)


def es_draws(count: int, **fields: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Estimates [count, SIZE], where they were made (relative to the minimum), and the curvature."""
    power, noise = fields.pop("power", 2), fields.pop("noise", 0.0)
    plain, task = toy(ESGradientsConfig(**fields), power=power, noise=noise)
    state, batch = task.init(KEY), task.batch(KEY)
    keys = jax.random.split(jax.random.key(1), count)
    estimate = lambda key: vector(task.value_and_grad(state, key, batch)[1])
    apart = vector(state.params) - jnp.mean(batch.points, axis=0)
    return (
        np.asarray(jax.jit(jax.vmap(estimate))(keys), np.float64),
        np.asarray(apart, np.float64),
        float(plain.dynamic.curvature),
    )


def test_the_es_estimate_of_a_quadratic_is_unbiased_with_the_variance_of_independent_pairs() -> None:
    """E[g·ε ε] = g and Var = (‖g‖² + gᵢ²) / N for twins that share everything else, the noise of the loss too."""
    draws, apart, curvature = es_draws(20_000, std=0.1, num_pairs=4, noise=100.0)
    gradient = curvature * apart
    assert_mean(draws, gradient)
    variance = (np.sum(gradient**2) + gradient**2) / 4
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.1)  # some five standard errors


def test_the_es_estimate_is_the_gradient_of_the_smoothed_loss() -> None:
    """Of c Σ x³/3 that is c (x² + σ²), and not c x²."""
    draws, apart, curvature = es_draws(20_000, std=0.7, num_pairs=1, power=3)
    assert_mean(draws, curvature * (apart**2 + 0.49))
    error = draws.std(axis=0) / math.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - curvature * apart**2) > 8 * error).all()


@pytest.mark.parametrize(
    ("fraction", "kept"), [(1.0, 16), (0.99, 15), (0.5, 8), (0.07, 1), (0.01, 1)], ids=str
)
def test_a_reduced_batch_is_the_beginning_of_the_batch(fraction: float, kept: int) -> None:
    plain, reduced = mlp(ReducedBatchConfig(fraction=fraction))
    whole, part = plain.batch(KEY, "test"), reduced.batch(KEY, "test")
    same(part, jax.tree.map(lambda leaf: leaf[:kept], whole))
    state = plain.init(KEY)
    same(reduced.init(KEY), state)
    assert float(reduced.loss(state, KEY, part)[0]) == float(plain.loss(state, KEY, part)[0])
    assert (shown(reduced, state)[0] == shown(plain, state)[0]) == (kept == 16)


def test_a_reduced_batch_is_refused_where_batches_are_not_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ReducedBatchConfig(fraction=0.5)
    assert config.refuses(MLP) is None
    monkeypatch.setattr(MlpConfig, "has_examples", False)
    with pytest.raises(
        ValueError, match="'reduced_batch' does not go with 'mlp': its batches are not made of"
    ):
        TaskConfig(family=MLP, augmentations=(config,))


def test_low_precision_rounds_parameters_and_inputs_and_nothing_else() -> None:
    plain, low = toy(LowPrecisionConfig())
    before, start = plain.init(KEY), low.init(KEY)
    same(start.params, jax.tree.map(lambda p: p.astype(jnp.bfloat16), before.params))
    assert not np.array_equal(vector(start.params).astype(jnp.float32), vector(before.params))
    same(start.model_state, before.model_state)
    batch = low.batch(KEY)
    same(batch.points, plain.batch(KEY).points.astype(jnp.bfloat16))
    same(batch.labels, plain.batch(KEY).labels)
    loss, after, grads = shown(low, start)
    assert loss.dtype == low.loss(start, KEY, batch)[0].dtype == jnp.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves((after.params, grads))} == {"bfloat16"}
    types = lambda tree: [leaf.dtype for leaf in jax.tree.leaves(tree)]
    assert types(after.model_state) == types(before.model_state)


def test_a_network_in_low_precision_computes_nearly_the_same() -> None:
    plain, low = mlp(LowPrecisionConfig())
    loss, _, grads = shown(plain, plain.init(KEY))
    low_loss, _, low_grads = shown(low, low.init(KEY))
    assert float(low_loss) != float(loss)
    assert float(low_loss) == pytest.approx(float(loss), rel=2 * 2**-8)
    for a, b in zip(jax.tree.leaves(low_grads), jax.tree.leaves(grads), strict=True):
        assert a.dtype == jnp.bfloat16
        difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
        assert 0 < np.linalg.norm(difference) < 0.05 * np.linalg.norm(b)


def test_a_normalised_gradient_has_norm_one_and_its_direction() -> None:
    plain, unit = mlp(NormalizedGradientConfig())
    state = plain.init(KEY)
    flat = lambda tree: np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])
    gradient, direction = flat(shown(plain, state)[2]), flat(shown(unit, state)[2])
    assert np.linalg.norm(direction) == pytest.approx(1.0, abs=1e-6)
    assert abs(np.linalg.norm(gradient) - 1) > 0.1
    np.testing.assert_allclose(direction, gradient / np.linalg.norm(gradient), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_normalising_neither_overflows_nor_vanishes(size: float) -> None:
    tree = {"a": jnp.array([3.0 * size, 0.0]), "b": jnp.array([[-4.0 * size]])}
    same(jax.tree.map(jnp.round, jax.tree.map(lambda x: x * 1e6, normalized(tree))),
         {"a": jnp.array([6e5, 0.0]), "b": jnp.array([[-8e5]])})  # fmt: skip


def test_a_zero_gradient_stays_exactly_zero() -> None:
    zero = {"a": jnp.zeros(3), "b": jnp.zeros((2, 1), jnp.bfloat16)}
    same(normalized(zero), zero)


@pytest.mark.parametrize("has_state", [True, False], ids=["state", "stateless"])
@pytest.mark.parametrize("delay", [1, 2, 5])
def test_gradients_and_shown_losses_are_exactly_delay_steps_old(delay: int, has_state: bool) -> None:
    plain, task = toy(DelayedGradientsConfig(delay=delay), noise=1.0, has_state=has_state)
    keys = jax.random.split(KEY, 9)
    optimizer = optax.sgd(0.1)
    step = jax.jit(lambda state, key: inner_step(task, optimizer, state, key))
    state = init_inner(task, optimizer, KEY)
    trajectory, losses = [state.task_state.params], []
    for key in keys:
        state, loss = step(state, key)
        trajectory.append(state.task_state.params)
        losses.append(loss)
    at = jax.jit(lambda params, key: value_and_grad(
        plain, plain.init(KEY)._replace(params=params), jax.random.fold_in(key, 1), plain.batch(key)
    ))  # fmt: skip
    for t, key in enumerate(keys):
        (loss, _), grads = at(trajectory[max(t - delay, 0)], key)
        assert float(losses[t]) == pytest.approx(float(loss), rel=1e-5)
        taken = (vector(trajectory[t]) - vector(trajectory[t + 1])) / 0.1
        np.testing.assert_allclose(taken, vector(grads), rtol=1e-4, atol=1e-5)
    fresh = vector(at(trajectory[-2], keys[-1])[1])
    assert not np.allclose(taken, fresh, rtol=1e-2)
    if has_state:  # not delayed: one step of it per step
        assert int(state.task_state.model_state.inner["steps"]) == len(keys)
    # Evaluation is never stale, and doesn't age anything.
    current = TaskState(trajectory[-1], plain.init(KEY).model_state)
    evaluated = mean_loss(task, state.task_state, KEY, num_batches=2)
    assert float(evaluated) == pytest.approx(float(mean_loss(plain, current, KEY, num_batches=2)), rel=1e-6)
    _, after = task.loss(state.task_state, KEY, task.batch(KEY))
    same(after.model_state.past, state.task_state.model_state.past)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (ESGradientsConfig, {"std": 0.0, "num_pairs": 1}),
        (ESGradientsConfig, {"std": 0.1, "num_pairs": 0}),
        (ReducedBatchConfig, {"fraction": 0.0}),
        (ReducedBatchConfig, {"fraction": 1.5}),
        (SubsampledDirectionsConfig, {"num_directions": 0, "ignore_magnitude": True}),
        (DelayedGradientsConfig, {"delay": 0}),
    ],
)
def test_numbers_that_make_no_sense_are_refused(config: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"should be (greater|less) than"):
        config(**fields)


def test_what_the_prior_cannot_draw_is_allowed_and_said_to_be_outside() -> None:
    inside = (ESGradientsConfig(std=0.1, num_pairs=16), DelayedGradientsConfig(delay=8))
    outside = (
        ESGradientsConfig(std=0.2, num_pairs=16),
        ESGradientsConfig(std=0.1, num_pairs=3),
        DelayedGradientsConfig(delay=9),
        SubsampledDirectionsConfig(num_directions=2000, ignore_magnitude=True),
    )
    assert [c.could_sample() for c in (*inside, *outside)] == [True] * 2 + [False] * 4


def test_the_approximate_cost_knows_more_evaluations_and_smaller_batches() -> None:
    """A gradient is three losses' worth; of 4 pairs, 8 losses and the one that is shown."""
    plain = TaskConfig(family=MLP).approximate_cost()
    cost = lambda *augmentations: TaskConfig(family=MLP, augmentations=augmentations).approximate_cost()
    pairs, quarter = ESGradientsConfig(std=0.1, num_pairs=4), ReducedBatchConfig(fraction=0.25)
    thrice = {
        name: 3 * plain[name]
        for name in ("flops_per_step", "values_per_step", "rows_per_step", "reads_per_step", "depth")
    }
    assert cost(pairs) == {**plain, **thrice}
    less = {name: value / 4 for name, value in plain.items() if name.endswith("_per_step")}
    assert cost(quarter) == {**plain, **less}
    assert cost(pairs, quarter)["flops_per_step"] == pytest.approx(plain["flops_per_step"] * 3 / 4)
    assert cost(ReducedBatchConfig(fraction=0.001))["examples_per_step"] == 1.0  # one is kept at least
    assert cost(DelayedGradientsConfig(delay=2)) == plain
