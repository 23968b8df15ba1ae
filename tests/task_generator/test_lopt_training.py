"""Training a learned optimizer as a task."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.config import derive
from task_generator.families import LoptTrainingConfig, MlpConfig
from task_generator.families.lopt_training import KINDS, WITH_A_NETWORK, OptimizerPrior, TrainedOptimizer

INNER = MlpConfig(
    hidden_size=4,
    num_layers=1,
    image_size=4,
    batch_size=8,
    dataset="digits",
    activation="tanh",
    initializer="normal",
    init_scale=1.0,
)
NETWORK = {"hidden_size": 3, "hidden_layers": 1, "step_mult": 0.1, "exp_mult": 0.1}


def _config(kind: str, **changes: Any) -> LoptTrainingConfig:
    network = NETWORK if kind in WITH_A_NETWORK else {}
    optimizer = TrainedOptimizer(kind=kind, **network)  # type: ignore[arg-type]
    fields = {"optimizer": optimizer, "inner_task": INNER, "num_steps": 3, "outer_batch_size": 2, **changes}
    return LoptTrainingConfig.model_validate(fields)


def _task(config: LoptTrainingConfig) -> Any:
    family = config.build()
    return family.task(family.sample_dynamic(jax.random.key(0)))


def test_the_loss_of_learnable_sgd_is_that_of_a_loop_written_out() -> None:
    config = _config("learnable_sgd")
    task, inner = _task(config), INNER.build()
    inner_task = inner.task(inner.sample_dynamic(jax.random.key(0)))
    rate = 0.3
    batch = task.batch(jax.random.key(5))
    loss, _ = task.loss(
        task.init(jax.random.key(1))._replace(params={"log_learning_rate": jnp.log(jnp.float32(rate))}),
        jax.random.key(2),
        batch,
    )
    losses = []
    for run in batch.keys:
        init_key, train_key = jax.random.split(run)
        state = inner_task.init(init_key)
        for step in range(config.num_steps):
            key = jax.random.fold_in(train_key, step)
            data = inner_task.batch(key)
            value, grads = jax.value_and_grad(
                lambda p, s=state, k=key, d=data: inner_task.loss(s._replace(params=p), k, d)[0]
            )(state.params)
            losses.append(float(value) / np.log(10))
            state = state._replace(params=jax.tree.map(lambda p, g: p - rate * g, state.params, grads))
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in WITH_A_NETWORK)) for kind in KINDS]
)
def test_the_gradient_is_that_of_finite_differences(kind: str) -> None:
    config = _config(kind, outer_batch_size=1)
    task = _task(config)
    state, batch, key = task.init(jax.random.key(1)), task.batch(jax.random.key(4)), jax.random.key(2)
    loss = jax.jit(lambda p: task.loss(state._replace(params=p), key, batch)[0])
    grads = jax.jit(jax.grad(loss))(state.params)
    leaves, structure = jax.tree.flatten(state.params)
    direction = structure.unflatten(
        [jax.random.normal(jax.random.fold_in(jax.random.key(9), i), x.shape) for i, x in enumerate(leaves)]
    )
    slope = sum(
        float(jnp.sum(g * d)) for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
    )
    assert slope != 0.0
    # The loss is a float32 mean near 1, right to a few units in the last place (5e-7): over steps of 2e-3 that is
    # an error of 1.5e-4 in the slope, and larger steps cross kinks.
    step = 2e-3
    shifted = [jax.tree.map(lambda p, d, s=s: p + s * d, state.params, direction) for s in (step, -step)]
    difference = (float(loss(shifted[0])) - float(loss(shifted[1]))) / (2 * step)
    assert difference == pytest.approx(slope, rel=0.03, abs=1.5e-4)


def test_the_split_decides_where_the_inner_data_come_from() -> None:
    task = _task(_config("learnable_sgd"))
    state, key = task.init(jax.random.key(1)), jax.random.key(2)
    train, test = (task.loss(state, key, task.batch(key, split))[0] for split in ("train", "test"))
    assert float(train) != float(test)


def test_a_longer_unroll_of_a_good_rate_has_a_lower_mean_loss() -> None:
    losses = []
    for num_steps in (1, 60):
        task = _task(_config("learnable_adam", num_steps=num_steps, outer_batch_size=4))
        state = task.init(jax.random.key(1))
        state = state._replace(params={**state.params, "log_learning_rate": jnp.log(jnp.float32(0.1))})
        losses.append(float(task.loss(state, jax.random.key(0), task.batch(jax.random.key(3)))[0]))
    assert losses[1] < 0.9 * losses[0]


def test_network_fields_belong_to_optimizers_with_a_network() -> None:
    with pytest.raises(ValueError, match=r"kind='learnable_adam' has no `hidden_size`.*Leave it out"):
        TrainedOptimizer(kind="learnable_adam", hidden_size=4)
    with pytest.raises(
        ValueError, match=r"kind='adafactor_mlp' needs `hidden_layers`, `step_mult`, `exp_mult`"
    ):
        TrainedOptimizer(kind="adafactor_mlp", hidden_size=4)


def test_every_kind_is_drawn_and_draws_are_contained() -> None:
    rng, prior = np.random.default_rng(0), OptimizerPrior()
    draws = [prior.sample(rng) for _ in range(300)]
    assert {draw.kind for draw in draws} == set(KINDS)
    assert all(prior.contains(draw) for draw in draws)
    large = next(draw for draw in draws if draw.kind == "adafactor_mlp")
    assert not prior.contains(derive(large, step_mult=2.0))
