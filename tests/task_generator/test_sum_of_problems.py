"""The sum of problems is the sum of its parts in loss and gradient; what cannot be a part is refused."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.training_gradient import value_and_grad
from lopt.types import TaskState
from task_generator import TaskConfig, parse_task_config
from task_generator.families.functions_2d import Functions2DConfig
from task_generator.families.minibatch_quadratic import MinibatchQuadraticConfig
from task_generator.families.mlp import MlpConfig
from task_generator.families.quadratics import QuadraticConfig
from task_generator.families.sum_of_problems import SumOfProblemsConfig

KEY = jax.random.key(0)
PARTS = (
    QuadraticConfig(dimension=4, noisy=True),
    Functions2DConfig(function="booth"),
    MinibatchQuadraticConfig(dimension=3, num_examples=20, batch_size=5),
)


@functools.cache
def _dynamic() -> Any:
    """One for both kinds of sum, which differ by what they do with it."""
    return jax.jit(SumOfProblemsConfig(parts=PARTS).build().sample_dynamic)(KEY)


def _pair(*, normalized: bool) -> tuple[Any, list[Any]]:
    """The sum, and its parts as tasks of their own."""
    family = SumOfProblemsConfig(parts=PARTS, normalized=normalized).build()
    dynamic = _dynamic()
    return family.task(dynamic), [part.build().task(d) for part, d in zip(PARTS, dynamic.parts, strict=True)]


@pytest.mark.parametrize("normalized", [False, True])
def test_the_sum_equals_the_sum_of_its_parts(normalized: bool) -> None:
    task, parts = _pair(normalized=normalized)
    state, batch = task.init(KEY), task.batch(KEY)
    assert len(state.params) == 3
    (loss, _), grads = jax.jit(lambda *args: value_and_grad(task, *args))(state, KEY, batch)
    assert float(loss) == pytest.approx(float(task.loss(state, KEY, batch)[0]), rel=1e-6)
    total = 0.0
    for i, part in enumerate(parts):
        part_state = TaskState(state.params[i], state.model_state[i])
        (value, _), part_grads = value_and_grad(part, part_state, jax.random.fold_in(KEY, i), batch[i])
        weight = 1 / float(task.start_losses[i]) if normalized else 1.0
        total += weight * float(value)
        jax.tree.map(
            lambda ours, theirs, w=weight: np.testing.assert_allclose(ours, w * theirs, rtol=1e-5),
            grads[i],
            jax.tree.map(np.asarray, part_grads),
        )
    assert float(loss) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_normalised_loss_is_one_at_the_start(normalized: bool) -> None:
    task, _ = _pair(normalized=normalized)
    state = task.init(KEY)
    start = task.start_losses[:2]  # the third sees another batch
    loss = jnp.sum(start / start if normalized else start) + (1.0 if normalized else task.start_losses[2])
    assert float(task.normalize(loss)) == pytest.approx(1.0, rel=1e-5)
    for i, part in enumerate(PARTS[:2]):
        value = part.build().task(_dynamic().parts[i]).loss(TaskState(state.params[i]), KEY, ())[0]
        assert float(value) == pytest.approx(float(start[i]), rel=1e-5)


def test_a_network_on_data_can_be_a_part() -> None:
    mlp = MlpConfig(hidden_size=4, num_layers=1, image_size=4, batch_size=8, dataset="digits")
    config = TaskConfig(family=SumOfProblemsConfig(parts=(mlp, QuadraticConfig(dimension=3))))
    family = config.build()

    def start(key: jax.Array) -> Any:
        task = family.task(family.sample_dynamic(key))
        state = task.init(key)
        return state, value_and_grad(task, state, key, task.batch(key))

    state, ((loss, _), grads) = jax.eval_shape(start, KEY)
    assert (loss.shape, loss.dtype) == ((), jnp.float32)
    assert jax.tree.structure(grads) == jax.tree.structure(state.params)
    assert [leaf for leaf in jax.tree.leaves(family) if isinstance(leaf, jax.Array)]  # data are no constants
    leaves = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert config.approximate_cost()["num_params"] == leaves


def test_parts_survive_json_with_all_their_fields() -> None:
    config = TaskConfig(family=SumOfProblemsConfig(parts=PARTS))
    again = parse_task_config(config.model_dump_json())
    assert again == config
    assert again.family.parts == PARTS  # type: ignore[attr-defined]
    assert again.fingerprint() == config.fingerprint()
    other = SumOfProblemsConfig(parts=(QuadraticConfig(dimension=5), *PARTS[1:]))
    assert TaskConfig(family=other).fingerprint() != config.fingerprint()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"family": "sum_of_problems", "parts": []}, "a sum can't be part of a sum"),
        (
            {"family": "quadratik", "dimension": 3},
            "unknown task family 'quadratik'.*Did you mean 'quadratic'",
        ),
        ({"family": "quadratic", "dimension": 0}, "not a configuration of 'quadratic': `dimension`"),
        (SumOfProblemsConfig(parts=PARTS), "a sum can't be part of a sum"),
        (7, "a part is a family's configuration, got 7"),
    ],
)
def test_what_cannot_be_a_part_is_refused(part: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SumOfProblemsConfig.model_validate({"parts": (QuadraticConfig(dimension=2), part)})


def test_the_prior_contains_what_it_draws_and_nothing_else() -> None:
    prior = SumOfProblemsConfig.prior()["parts"]
    rng = np.random.default_rng(0)
    draws = [prior.sample(rng) for _ in range(200)]
    assert all(prior.contains(draw) for draw in draws)
    assert {len(draw) for draw in draws} == set(range(2, 12))
    assert not prior.contains(PARTS)
    assert not prior.contains((QuadraticConfig(dimension=26), QuadraticConfig(dimension=3)))
