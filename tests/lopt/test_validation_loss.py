"""Optimizers that ask for a validation loss, and those that don't."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import initial_theta, perturbed_theta, small

from lopt.inner_loop import init_inner, inner_step, unroll
from lopt.types import PRNGKey, Scalar, Split, TaskState
from lopt.use.binding import bind
from lopt.use.guard_rails import skip_non_finite
from lopt.validation_loss import ValidationRequest, validation_due

LEVEL: dict[Split, float] = {"train": 1.0, "inner_valid": 2.0, "outer_valid": 3.0, "test": 4.0}
KEY = jax.random.key(0)


class Levels:
    """½·Σ x² plus a number that says which split the batch is of."""

    def init(self, key: PRNGKey) -> TaskState:
        return TaskState({"x": jnp.ones((2, 3))})

    def batch(self, key: PRNGKey, split: Split = "train") -> jax.Array:
        return jnp.float32(LEVEL[split])

    def loss(self, state: TaskState, key: PRNGKey, batch: jax.Array) -> tuple[Scalar, TaskState]:
        return 0.5 * jnp.sum(jnp.square(state.params["x"])) + batch, state

    def normalize(self, loss: Scalar) -> Scalar:
        return loss


def listener(interval: int) -> optax.GradientTransformationExtraArgs:
    """Gradient descent that keeps what it was last told, and how often."""

    def init(params: Any) -> Any:
        return ValidationRequest.now(), jnp.float32(0.0), jnp.int32(0)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        request, told, times = state
        heard = jnp.isfinite(extra["valid_value"])
        state = (
            request.after_update(interval),
            jnp.where(heard, extra["valid_value"], told),
            times + heard.astype(jnp.int32),
        )
        return jax.tree.map(lambda g: -0.1 * g, grads), state

    return optax.GradientTransformationExtraArgs(init, update)


def test_it_is_told_the_validation_loss_at_the_parameters_once_per_interval() -> None:
    """After step t the parameters are 0.9ᵗ; steps 0, 3 and 6 are told, so last ½·6·0.9¹² + 2."""
    task, optimizer = Levels(), skip_non_finite(listener(3))
    start = init_inner(task, optimizer, KEY)
    run = jax.jit(lambda stop: unroll(task, optimizer, start, KEY, start=0, stop=stop))
    for stop, times in ((1, 1), (3, 1), (4, 2), (8, 3)):
        _, told, heard = run(stop).optimizer_state.inner
        assert int(heard) == times
        np.testing.assert_allclose(told, 3.0 * 0.9 ** (2 * 3 * (times - 1)) + 2.0, rtol=1e-6)


def test_the_request_is_found_in_wrappers_and_none_is_none() -> None:
    params = {"x": jnp.ones(2)}
    assert validation_due(optax.adam(0.1).init(params)) is None
    pacer = small("pacer")
    assert validation_due(pacer.transform(initial_theta(pacer), num_steps=3).init(params)) is None
    chained = optax.chain(optax.clip(1.0), optax.multi_transform({"a": listener(2)}, {"x": "a"}))
    state = chained.init(params)
    for due in (True, False, True, False):
        assert bool(validation_due(state)) is due
        _, state = chained.update(params, state, params, valid_value=jnp.float32(1.0))


@pytest.mark.slow
def test_rnn_mlp_hears_it_in_meta_training() -> None:
    """Every second step, by itself and vectorised over weights; what it is told changes the run."""
    learned = small("rnn_mlp", validation_interval=2)
    thetas = jax.tree.map(lambda *x: jnp.stack(x), *(perturbed_theta(learned, seed) for seed in (0, 1)))

    def train(theta: Any, is_told: bool) -> Any:
        task, opt = Levels(), bind(learned, theta, num_steps=5)
        deaf = optax.GradientTransformationExtraArgs(
            opt.init, lambda grads, state, params=None, *, value, valid_value: opt.update(
                grads, state, params, value=value
            )
        )  # fmt: skip
        state = init_inner(task, opt if is_told else deaf, KEY)
        for t in range(5):
            state, _ = inner_step(task, opt if is_told else deaf, state, jax.random.fold_in(KEY, t))
        return state

    both = jax.jit(jax.vmap(lambda theta: train(theta, True)))(thetas)
    alone = jax.jit(lambda theta: (train(theta, True), train(theta, False)))
    told, deaf = alone(jax.tree.map(lambda x: x[1], thetas))
    np.testing.assert_allclose(told.task_state.params["x"], both.task_state.params["x"][1], rtol=1e-5)
    assert float(told.optimizer_state.inner.valid_loss.num_losses) == 3
    assert float(deaf.optimizer_state.inner.valid_loss.num_losses) == 0
    assert float(jnp.max(jnp.abs(told.task_state.params["x"] - deaf.task_state.params["x"]))) > 1e-7
