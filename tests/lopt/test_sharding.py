"""Sharded states: the layout follows the parameters, and the numbers are those of one device.

Run as a script (by the tests below, with four virtual devices) it trains on a mesh; imported, it tests the rules.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from optimizers import NAMES, assert_close, moved, perturbed_theta, small

from lopt.use.binding import bind, bound_states
from lopt.use.continuation import continue_run
from lopt.use.guard_rails import accumulate_above, l2_weight_decay, skip_non_finite
from lopt.use.layerwise import LayerwiseOptimizer
from lopt.use.monitoring import step_size_monitor
from lopt.use.sharding import init_sharded, keep_sharded, state_sharding

AXES, SIZES = ("data", "model"), (2, 2)
SHAPES: dict[str, tuple[tuple[int, ...], tuple[Any, ...]]] = {
    "query": ((8, 8), (None, "model")),
    "key": ((8, 8), (None, "model")),
    "out": ((8, 8), ("model",)),
    "norm": ((8,), ()),
    "up": ((8, 12), ("data", "model")),
    "bias": ((12,), ("model",)),
    "conv": ((3, 3, 2, 4), (None, None, None, "model")),
    "scale": ((), ()),
}


def host_params(shapes: dict[str, Any] = SHAPES) -> Any:
    return {
        name: 0.3 * jnp.cos(i + jnp.arange(float(np.prod(shape)))).reshape(shape)
        for i, (name, (shape, _)) in enumerate(shapes.items())
    }


def on(mesh: Any, shapes: dict[str, Any] = SHAPES) -> Any:
    """Returns the parameters' shapes and shardings."""
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))
        for name, (shape, spec) in shapes.items()
    }


def abstract(shapes: dict[str, Any] = SHAPES) -> Any:
    return on(AbstractMesh(SIZES, AXES, axis_types=(AxisType.Auto,) * 2), shapes)


def specs(tree: Any) -> Any:
    return jax.tree.map(lambda sharding: tuple(sharding.spec), tree)


# -- the rules, without devices


def test_stacks_are_cut_as_their_tensors_are() -> None:
    learned = small("velo", mlp_bank_size=5)
    state = specs(state_sharding(learned.transform(perturbed_theta(learned), num_steps=3), abstract()))
    # One stack per shape, in the order of the sorted names: bias, conv, key (out, query), norm, scale, up.
    bias, conv, attention, norm, scale, up = state.accumulators
    assert bias.momenta == ((None, "model"),) * 3
    assert conv.second_moments == ((None, None, None, None, "model"),)
    assert attention.momenta == ((None, None, "model"),) * 3  # two of three; `out` is cut otherwise
    assert norm.momenta == ((),) * 3
    assert scale.momenta == ((),) * 3
    assert up.momenta == ((None, "data", "model"),) * 3
    assert [tuple(f) for f in up.factored] == [((None, "data"), (None, None, "model"))] * 3
    assert state.progress == state.controls == state.step_scalars == ()
    assert tuple(state.lstm) == ((), ())


def test_weights_are_on_every_device_and_mirrors_follow_exactly() -> None:
    learned = small("velo")
    theta = {"layer": jnp.ones((8, 12)), **perturbed_theta(learned)}  # one has the shape of a parameter
    opt = skip_non_finite(
        accumulate_above(lambda n: bind(learned, theta, num_steps=n), num_steps=4, max_training_steps=2)
    )
    state = specs(state_sharding(opt, abstract()))
    (bound,) = bound_states(state)
    assert all(spec == () for spec in jax.tree.leaves(bound.theta, is_leaf=lambda x: isinstance(x, tuple)))
    assert state.inner.mean_grads == {name: spec for name, (_, spec) in SHAPES.items()}


def test_any_optimizer_of_optax_is_cut() -> None:
    state = specs(state_sharding(optax.adam(0.1), abstract()))
    assert state[0].mu == state[0].nu == {name: spec for name, (_, spec) in SHAPES.items()}
    assert state[0].count == ()


def test_the_replicated_members_of_a_stack_do_not_decide() -> None:
    """Two of three tensors are on every device, the third is cut: so is the stack, which costs no more memory."""
    learned = small("adafactor_mlp")
    shapes = {"a": ((8, 8), ()), "b": ((8, 8), ()), "c": ((8, 8), (None, "model"))}
    opt = learned.transform(perturbed_theta(learned), num_steps=3)
    state = specs(state_sharding(opt, abstract(shapes)))
    assert state.accumulators[0].momenta == ((None, None, "model"),) * 3


def test_layers_keep_their_axis_in_front() -> None:
    learned = small("velo")
    shapes = {"blocks": ((4, 8, 12), ("data", None, "model")), "head": ((8, 12), (None, "model"))}
    layered = LayerwiseOptimizer(learned, stacked={"blocks": True, "head": False})
    state = specs(state_sharding(layered.transform(perturbed_theta(learned), num_steps=3), abstract(shapes)))
    assert state.stacks[0].accumulators[0].momenta == (("data", None, None, "model"),) * 3
    assert state.rest.accumulators[0].momenta == ((None, None, "model"),) * 3


def test_large_tensors_kept_as_vectors_are_cut_into_as_many_pieces() -> None:
    learned = small("pacer")
    shapes = {"large": ((512, 256), ("data", "model")), "small": ((8, 12), (None, "model"))}
    state = specs(state_sharding(learned.transform(perturbed_theta(learned), num_steps=3), abstract(shapes)))
    small_group, large_group = state.groups
    assert large_group.momenta == (None, AXES)
    assert large_group.second_moment == (AXES,)
    assert (small_group.momenta, small_group.second_moment) == ((), ())


def test_parameters_off_the_mesh_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must live on one mesh.*found 0"):
        state_sharding(optax.adam(0.1), host_params())
    two = {**abstract(), "norm": on(AbstractMesh((4,), ("other",)), {"x": ((8,), ())})["x"]}
    with pytest.raises(ValueError, match=r"must live on one mesh.*found 2"):
        state_sharding(optax.adam(0.1), two)


# -- the numbers, on four virtual devices


@pytest.mark.parametrize(
    "case",
    [
        "wrappers",
        "layers",
        *(pytest.param(c, marks=pytest.mark.slow) for c in ("architectures", "propagation")),
    ],
)
def test_on_four_devices(case: str, xla_flags: str) -> None:
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{xla_flags} --xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path]),
    }
    result = subprocess.run(
        [sys.executable, __file__, case], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.strip().endswith("passed")


def mesh_of_four() -> Any:
    assert jax.device_count() == 4
    return jax.make_mesh(SIZES, AXES, axis_types=(AxisType.Auto,) * 2)


def step_of(opt: Any) -> Any:
    @jax.jit
    def step(params: Any, state: Any, i: jax.Array) -> Any:
        grads = jax.tree.map(lambda p: jnp.sin(3.0 * p + i) + 0.1 * p, params)
        updates, state = opt.update(grads, state, params, value=2.0 / (1.0 + i))
        return optax.apply_updates(params, updates), state

    return step


def check_same(opt: Any, shapes: dict[str, Any], *, steps: int, name: str, cut: int, **close: float) -> Any:
    """Trains on the mesh and on one device; asserts equal numbers, kept layouts and one program.

    `cut` is how many arrays of the state must at least be held in pieces.
    """
    mesh = mesh_of_four()
    host = host_params(shapes)
    params = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), host, on(mesh, shapes))
    sharded = keep_sharded(opt, params)
    wanted = state_sharding(opt, params)
    state, alone = init_sharded(opt, params), opt.init(host)
    assert_close(state, alone)
    step, step_alone = step_of(sharded), step_of(opt)
    for i in range(steps):
        params, state = step(params, state, jnp.float32(i))
        host, alone = step_alone(host, alone, jnp.float32(i))
    assert moved(host_params(shapes), host) > 1e-6, name
    assert_close(params, host, **close)
    assert step._cache_size() == 1, name
    pieces = 0
    for (path, array), sharding in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(wanted), strict=True
    ):
        where = name + jax.tree_util.keystr(path)
        assert array.sharding.is_equivalent_to(sharding, array.ndim), where
        held = {shard.data.shape for shard in array.addressable_shards}
        assert held == {sharding.shard_shape(array.shape)}, where
        pieces += held != {array.shape}
    for x, like in zip(jax.tree.leaves(params), jax.tree.leaves(on(mesh, shapes)), strict=True):
        assert x.sharding.is_equivalent_to(like.sharding, x.ndim), name
    assert pieces >= cut, (name, pieces)
    return sharded, params, state, step


def run_architectures() -> None:
    for name in NAMES:
        learned = small(name)
        opt = bind(learned, perturbed_theta(learned), num_steps=6)
        keeps_nothing = name == "learnable_sgd"
        check_same(opt, SHAPES, steps=4, name=name, cut=0 if keeps_nothing else 1, rtol=1e-4, atol=2e-6)


def run_wrappers() -> None:
    """All wrappers at once, a large tensor, and a continuation in the same program."""
    shapes = {**SHAPES, "large": ((512, 256), (None, "model"))}
    learned = small("pacer")
    theta = perturbed_theta(learned)
    accumulated = accumulate_above(
        lambda n: bind(learned, theta, num_steps=n), num_steps=8, max_training_steps=4
    )
    opt = step_size_monitor(skip_non_finite(l2_weight_decay(accumulated, 1e-3)))
    sharded, params, state, step = check_same(
        opt, shapes, steps=6, name="wrappers", cut=6, rtol=1e-4, atol=2e-6
    )
    state = continue_run(sharded, state, params, num_steps=4)
    step(params, state, jnp.float32(6))
    assert step._cache_size() == 1


def run_layers() -> None:
    shapes = {"blocks": ((4, 8, 12), ("data", None, "model")), "head": ((8, 12), (None, "model"))}
    learned = small("velo")
    layered = LayerwiseOptimizer(learned, stacked={"blocks": True, "head": False})
    opt = bind(layered, perturbed_theta(learned), num_steps=6)
    check_same(opt, shapes, steps=4, name="layers", cut=20, rtol=1e-4, atol=2e-6)


def run_propagation() -> None:
    """Without `keep_sharded` the numbers are the same, too, and accumulators stay in pieces."""
    mesh, learned = mesh_of_four(), small("velo")
    opt = bind(learned, perturbed_theta(learned), num_steps=6)
    host = host_params()
    params = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), host, on(mesh))
    state, alone, step = init_sharded(opt, params), opt.init(host), step_of(opt)
    for i in range(4):
        params, state = step(params, state, jnp.float32(i))
        host, alone = step(host, alone, jnp.float32(i))
    assert_close(params, host, rtol=1e-4, atol=2e-6)
    momentum = state.inner.accumulators[5].momenta[0]
    assert momentum.sharding.shard_shape(momentum.shape) == (1, 4, 6)


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        globals()[f"run_{sys.argv[1]}"]()
    print(f"{sys.argv[1]} passed")
