"""The monitor: step sizes and controller outputs per tensor, by name, without touching the updates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import PARAMS, assert_close, assert_equal, compiled_step, perturbed_theta, small

from lopt.architectures.pacer import PacerConfig
from lopt.use.binding import bind
from lopt.use.guard_rails import skip_non_finite
from lopt.use.layerwise import LayerwiseOptimizer
from lopt.use.monitoring import readings, step_size_monitor, tensor_names

NAMES = ["again", "dense/b", "dense/w", "scalar"]


def test_names_are_paths_of_the_tensors_that_hold_something() -> None:
    assert tensor_names(PARAMS) == NAMES
    assert tensor_names({"layers": [jnp.ones(2), {"w": jnp.ones(1)}]}) == ["layers/0", "layers/1/w"]


def test_step_sizes_by_hand() -> None:
    """Gradient descent at rate 1: the step is the gradient."""
    params = {
        "a": jnp.asarray([3.0, 4.0]),
        "zero": jnp.zeros(4),
        "empty": jnp.zeros((0,)),
        "half": jnp.ones(2, jnp.bfloat16),
    }
    grads = {
        "a": jnp.asarray([6.0, -8.0]),
        "zero": jnp.asarray([1.0, 1.0, 1.0, -1.0]),
        "empty": jnp.zeros((0,)),
        "half": jnp.asarray([0.5, 0.0], jnp.bfloat16),
    }
    opt = step_size_monitor(optax.sgd(1.0))
    updates, state = opt.update(grads, opt.init(params), params)
    assert_equal(updates, optax.sgd(1.0).update(grads, optax.sgd(1.0).init(params), params)[0])
    expected = {
        "step_rms/a": 50.0**0.5,
        "step_rms/half": 0.125**0.5,
        "step_rms/zero": 1.0,
        "relative_step/a": 2.0,
        "relative_step/half": 0.125**0.5,
        "relative_step/zero": 0.0,  # relative to nothing
        "mean_absolute_step/a": 7.0,
        "mean_absolute_step/half": 0.25,
        "mean_absolute_step/zero": 1.0,
    }
    found = readings(state, params)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("pacer", {"log_steps": ()}),
        pytest.param("velo", {"controls": (8,), "step_scalars": ()}, marks=pytest.mark.slow),
    ],
)
def test_controller_outputs_have_the_rows_of_their_tensors(name: str, fields: dict[str, Any]) -> None:
    learned = small(name)
    opt = step_size_monitor(skip_non_finite(bind(learned, perturbed_theta(learned), num_steps=5)))
    state = opt.init(PARAMS)
    before = readings(state, PARAMS)
    _, state = compiled_step(opt)(PARAMS, state)
    found = readings(state, PARAMS)
    assert found.keys() == before.keys()
    for field, shape in fields.items():
        rows = getattr(state.inner.inner.inner, field)
        for i, tensor in enumerate(NAMES):
            assert found[f"{field}/{tensor}"].shape == shape
            np.testing.assert_array_equal(found[f"{field}/{tensor}"], rows[i])
        assert float(jnp.max(jnp.abs(rows))) > 0
    assert not any(np.any(np.asarray(value)) for value in before.values())


def test_log_steps_of_pacer_are_what_its_steps_were_multiplied_by() -> None:
    """Large tensors come first in leaf order and last in pacer's groups: the rows must be put back in order."""
    learned = PacerConfig().build()
    params = {
        "a_large": jnp.full((300, 300), 0.1),
        "b_small": jnp.full((4, 3), 0.2),
        "c_large": jnp.full((70_000,), 0.3),
    }
    theta = perturbed_theta(learned, size=0.3)
    tamed = {**theta, "controller": jax.tree.map(jnp.zeros_like, theta["controller"])}
    found = []
    for weights in (theta, tamed):
        opt = step_size_monitor(learned.transform(weights, num_steps=50))
        step = jax.jit(lambda s, opt=opt: opt.update(params, s, params, value=jnp.float32(1.0))[1])
        found.append(readings(step(opt.init(params)), params))
    for name in params:
        log_step = float(found[0][f"log_steps/{name}"])
        ratio = float(found[0][f"step_rms/{name}"] / found[1][f"step_rms/{name}"])
        np.testing.assert_allclose(np.log(ratio), log_step, rtol=1e-4, atol=1e-6, err_msg=name)
    assert len({round(float(found[0][f"log_steps/{name}"]), 4) for name in params}) > 1


def test_a_compiled_loop_stacks_a_run() -> None:
    learned = small("velo")
    opt = step_size_monitor(bind(learned, perturbed_theta(learned), num_steps=4))

    def body(carry: Any, loss: jax.Array) -> Any:
        params, state = carry
        updates, state = opt.update(params, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), state.measured

    losses = jnp.asarray([3.0, 2.0, 1.5, 1.2])
    (_, last), history = jax.jit(lambda: jax.lax.scan(body, (PARAMS, opt.init(PARAMS)), losses))()
    whole, end = readings(history, PARAMS), readings(last, PARAMS)
    assert whole["step_rms/dense/w"].shape == (4,)
    assert whole["controls/dense/w"].shape == (4, 8)
    assert_close({name: value[-1] for name, value in whole.items()}, end)
    assert len(set(np.asarray(whole["step_rms/dense/w"]).tolist())) > 1


def test_outputs_of_an_optimizer_that_sees_some_tensors_keep_their_fields_name() -> None:
    learned = small("pacer")
    params = {"blocks": jnp.ones((3, 2, 2)), "head": jnp.ones(2)}
    layered = LayerwiseOptimizer(learned, stacked={"blocks": True, "head": False})
    opt = step_size_monitor(bind(layered, perturbed_theta(learned), num_steps=4))
    found = readings(opt.init(params), params)
    assert {name: value.shape for name, value in found.items() if "log_steps" in name} == {
        "log_steps.0": (3, 1),
        "log_steps.1": (1,),
    }
    masked = step_size_monitor(
        optax.masked(bind(learned, perturbed_theta(learned), num_steps=4), {"blocks": True, "head": False})
    )
    assert readings(masked.init(params), params)["log_steps"].shape == (1,)


def test_an_empty_tree_has_no_readings() -> None:
    opt = step_size_monitor(optax.sgd(1.0))
    assert readings(opt.update({}, opt.init({}), {})[1], {}) == {}


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"wrap the optimizer in `lopt.step_size_monitor`"):
        readings(optax.adam(0.1).init(PARAMS), PARAMS)
    opt = step_size_monitor(optax.sgd(1.0))
    with pytest.raises(ValueError, match="needs the parameters"):
        opt.update(PARAMS, opt.init(PARAMS))
