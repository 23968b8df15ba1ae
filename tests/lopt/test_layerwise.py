"""Scanned layers: each one optimized as if by its own copy of the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import PARAMS, assert_close, assert_equal, fast_for, moved, perturbed_theta, small

from lopt.gradient_location import gradient_params
from lopt.types import LearnedOptimizer
from lopt.use.binding import bind, bound_states
from lopt.use.layerwise import LayerwiseOptimizer, scan_over_layers
from lopt.use.loading import load

LAYERS = 3
STACKED = {"embedding": False, "blocks": True, "head": False}


def model() -> Any:
    """Three layers with a matrix, a bias and a scalar each, between an embedding and a head."""
    wave = lambda shape, phase: 0.3 * jnp.cos(phase + jnp.arange(float(np.prod(shape)))).reshape(shape)
    return {
        "embedding": wave((5, 2), 0.0),
        "blocks": {
            "w": wave((LAYERS, 2, 4), 1.0),
            "b": wave((LAYERS, 4), 2.0),
            "scale": jnp.asarray([1.0, 0.5, 2.0]),
        },
        "head": {"w": wave((4, 2), 3.0), "b": jnp.zeros(2)},
    }


def gradients(params: Any, step: int) -> Any:
    return jax.tree.map(lambda p: jnp.sin(3.0 * p + step) + 0.1 * p, params)


def unstacked(params: Any) -> tuple[list[Any], Any]:
    """Returns every layer on its own, and the rest."""
    layers = [jax.tree.map(lambda x, i=i: x[i], params["blocks"]) for i in range(LAYERS)]
    return layers, [params["embedding"], params["head"]]


def run_copies(make: Callable[[], Any], params: Any, steps: int) -> Any:
    """Trains each layer and the rest with an optimizer of its own; returns the parameters, stacked again."""
    layers, rest = unstacked(params)
    parts = [*layers, rest]
    opt = make()
    states = [opt.init(part) for part in parts]
    update = jax.jit(opt.update)
    for step in range(steps):
        results = [
            update(gradients(part, step), state, part, value=jnp.float32(2.0 - 0.3 * step))
            for part, state in zip(parts, states, strict=True)
        ]
        parts = [optax.apply_updates(part, u) for part, (u, _) in zip(parts, results, strict=True)]
        states = [state for _, state in results]
    blocks = jax.tree.map(lambda *x: jnp.stack(x), *parts[:-1])
    return {"embedding": parts[-1][0], "blocks": blocks, "head": parts[-1][1]}


def run(opt: Any, params: Any, steps: int) -> tuple[Any, Any]:
    state, update = opt.init(params), jax.jit(opt.update)
    for step in range(steps):
        updates, state = update(gradients(params, step), state, params, value=jnp.float32(2.0 - 0.3 * step))
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("name", fast_for("pacer", among=["adafactor_mlp", "pacer", "velo"]))
def test_every_layer_has_its_own_copy_of_the_optimizer(name: str) -> None:
    learned = small(name)
    theta = perturbed_theta(learned)
    layered = LayerwiseOptimizer(learned, stacked=STACKED)
    ours, _ = run(bind(layered, theta, num_steps=5), model(), 4)
    assert_close(
        ours, run_copies(lambda: bind(learned, theta, num_steps=5), model(), 4), rtol=2e-4, atol=2e-6
    )
    together, _ = run(bind(learned, theta, num_steps=5), model(), 4)
    assert moved(model(), ours) > 1e-5
    if name == "velo":  # it passes messages between tensors, so that layers in one optimizer train otherwise
        assert moved(ours, together) > 1e-6


def test_it_wraps_any_optimizer() -> None:
    with jax.numpy_dtype_promotion("standard"):  # optax mixes float32 and int32 in its bias correction
        make = lambda: optax.with_extra_args_support(optax.lamb(0.1))
        ours, _ = run(scan_over_layers(make(), stacked=STACKED), model(), 3)
        assert_close(ours, run_copies(make, model(), 3), rtol=1e-5)


@pytest.mark.slow
def test_no_signal_passes_between_layers_but_the_loss() -> None:
    learned = small("velo")
    opt = LayerwiseOptimizer(learned, stacked=STACKED).transform(perturbed_theta(learned), num_steps=5)
    update = jax.jit(opt.update)

    def updates_of(change: float, loss: float) -> Any:
        params, state = model(), opt.init(model())
        for step in range(2):
            grads = gradients(params, step)
            grads["blocks"] = jax.tree.map(lambda g: g.at[1].add(change), grads["blocks"])
            updates, state = update(grads, state, params, value=jnp.float32(loss))
        return updates

    base, changed, other_loss = updates_of(0.0, 1.0), updates_of(5.0, 1.0), updates_of(0.0, 7.0)
    for i in range(LAYERS):
        layer, layer_changed = unstacked(base)[0][i], unstacked(changed)[0][i]
        if i == 1:
            assert moved(layer, layer_changed) > 0
        else:
            assert_equal(layer, layer_changed)
    assert_equal(unstacked(base)[1], unstacked(changed)[1])
    assert_equal(base, other_loss)  # a constant loss looks the same at any height


def test_weights_are_in_the_state_once() -> None:
    learned = small("velo")
    theta = perturbed_theta(learned)
    state = bind(LayerwiseOptimizer(learned, stacked=STACKED), theta, num_steps=5).init(model())
    (bound,) = bound_states(state)
    assert_equal(bound.theta, theta)
    assert bound.inner.stacks[0].step_scalars.shape == (LAYERS, 3)
    assert bound.inner.rest.step_scalars.shape == (3,)


def test_a_function_may_mark_the_stacks_and_stacks_may_differ_in_depth() -> None:
    params = {"encoder": {"w": jnp.ones((2, 3))}, "decoder": {"w": jnp.ones((4, 3))}, "out": jnp.ones(3)}
    mark = lambda tree: {name: name.endswith("coder") for name in tree}
    opt = scan_over_layers(optax.scale_by_trust_ratio(), stacked=mark)
    state = opt.init(params)
    assert len(state.stacks) == 2
    grads = jax.tree.map(lambda p: jnp.arange(p.size, dtype=p.dtype).reshape(p.shape) + 1.0, params)
    updates, _ = opt.update(grads, state, params)
    for layer in range(4):
        own, _ = optax.scale_by_trust_ratio().update(
            grads["decoder"]["w"][layer], (), params["decoder"]["w"][layer]
        )
        np.testing.assert_allclose(updates["decoder"]["w"][layer], own, rtol=1e-6)


@pytest.mark.parametrize("stacked", [True, False])
def test_all_or_nothing_may_be_stacked(stacked: bool) -> None:
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones((2, 1))}
    learned: LearnedOptimizer = small("pacer")
    layered = LayerwiseOptimizer(learned, stacked=stacked)
    opt = layered.transform(perturbed_theta(learned), num_steps=5)
    state = opt.init(params)
    updates, state = jax.jit(opt.update)(params, state, params, value=jnp.float32(1.0))
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    assert len(state.stacks) == int(stacked)


def test_it_is_a_learned_optimizer_of_the_same_weights() -> None:
    learned = small("velo")
    layered = LayerwiseOptimizer(learned, stacked=STACKED)
    assert layered.reads_loss == learned.reads_loss
    assert_equal(layered.init_theta(jax.random.key(3)), learned.init_theta(jax.random.key(3)))


def resolver(reference: str) -> Any:
    theta = small("pacer").init_theta(jax.random.key(0))
    paths = jax.tree_util.tree_leaves_with_path(theta)
    return {"architecture": "pacer"}, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def test_load_with_stacked_layers_guards_each_of_them() -> None:
    opt = load("champion", num_steps=5, stacked=STACKED, resolver=resolver)
    params = model()
    grads = gradients(params, 0)
    grads["blocks"]["w"] = grads["blocks"]["w"].at[1, 0, 0].set(jnp.nan)
    updates, state = jax.jit(opt.update)(grads, opt.init(params), params, value=jnp.float32(1.0))
    still = [not np.any(np.asarray(updates["blocks"]["w"][i])) for i in range(LAYERS)]
    assert still == [False, True, False]
    assert int(state.num_skipped_tensors) == 1
    assert gradient_params(state, params) is params


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, r"\['b'\]: 3, \['w'\]: 2"),
        ({"w": jnp.ones((2, 3)), "b": jnp.float32(1.0)}, r"\['b'\]: none"),
        ({"w": jnp.ones((0, 3))}, r"\['w'\]: 0"),
        ({}, "of no array"),
    ],
)
def test_arrays_without_a_common_leading_axis_are_named(blocks: Any, message: str) -> None:
    opt = scan_over_layers(optax.sgd(0.1), stacked={"blocks": True, "head": False})
    with pytest.raises(ValueError, match=f"layers as its leading axis.*{message}"):
        opt.init({"blocks": blocks, "head": jnp.ones(2)})


def test_marks_must_be_booleans() -> None:
    with pytest.raises(ValueError, match="`stacked` must be a tree of booleans"):
        scan_over_layers(optax.sgd(0.1), stacked={"dense": 1, "again": 0, "scalar": 0, "empty": 0}).init(
            PARAMS
        )
