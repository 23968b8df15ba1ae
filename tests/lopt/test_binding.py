"""Theta and the number of steps in the state: one compiled step for every checkpoint and every length of run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import (
    PARAMS,
    assert_close,
    assert_equal,
    compiled_step,
    fast_for,
    fresh,
    moved,
    objective,
    perturbed_theta,
    small,
)

from lopt.types import LearnedOptimizer
from lopt.use import loading
from lopt.use.binding import BoundState, bind, bound_states, check_num_steps, rebind
from lopt.use.guard_rails import accumulate_above, l2_weight_decay, skip_non_finite
from lopt.use.monitoring import step_size_monitor

WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "bare": lambda opt: opt,
    "guarded": lambda opt: skip_non_finite(l2_weight_decay(opt, 1e-3)),
    "chained": lambda opt: optax.chain(optax.clip_by_global_norm(1.0), opt),
    "monitored": lambda opt: step_size_monitor(skip_non_finite(opt)),
}


@pytest.fixture(params=fast_for("pacer", among=["pacer", "rnn_mlp"]))
def learned(request: pytest.FixtureRequest) -> LearnedOptimizer:
    return small(request.param)


def test_bound_optimizer_is_the_architectures_own(learned: LearnedOptimizer) -> None:
    theta = perturbed_theta(learned)
    bound, own = bind(learned, theta, num_steps=7), learned.transform(theta, num_steps=7)
    ours, theirs = (PARAMS, bound.init(PARAMS)), (PARAMS, own.init(PARAMS))
    bound_step, own_step = compiled_step(bound), compiled_step(own)
    for _ in range(3):
        ours, theirs = bound_step(*ours), own_step(*theirs)
    assert_close(ours[0], theirs[0])
    assert_close(ours[1].inner, theirs[1])
    assert moved(PARAMS, ours[0]) > 0


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_new_checkpoints_and_lengths_compile_nothing(wrapper: str) -> None:
    learned = small("pacer")
    thetas = [perturbed_theta(learned, seed) for seed in range(2)]
    traces = 0
    opt = WRAPPERS[wrapper](bind(learned, thetas[0], num_steps=10))
    loss, grads = jax.value_and_grad(objective)(PARAMS)

    @jax.jit
    def step(state: Any) -> Any:
        nonlocal traces
        traces += 1
        return opt.update(grads, state, PARAMS, value=loss)[0]

    results = []
    for theta, num_steps in ((thetas[0], 10), (thetas[1], 10), (thetas[1], 1_000)):
        other = WRAPPERS[wrapper](bind(learned, theta, num_steps=num_steps))
        results.append(step(other.init(PARAMS)))
        assert_close(results[-1], other.update(grads, other.init(PARAMS), PARAMS, value=loss)[0])
    assert_equal(step(rebind(opt.init(PARAMS), thetas[1])), results[1])
    assert moved(results[0], results[1]) > 1e-4
    assert moved(results[1], results[2]) > 1e-4
    assert (traces, step._cache_size()) == (1, 1)


def test_weights_are_no_part_of_the_program() -> None:
    """The executable of two checkpoints is the same text, and holds no constant of theta's size."""
    learned = small("velo", lstm_hidden_size=64)  # 100 000 weights
    texts = []
    for seed in range(2):
        opt = bind(learned, perturbed_theta(learned, seed), num_steps=10)
        lowered = compiled_step(opt).lower(PARAMS, opt.init(PARAMS))
        texts.append(lowered.as_text())
    assert texts[0] == texts[1]
    assert len(texts[0]) < 1_000_000  # theta printed as a constant would be longer


def test_a_donated_state_hands_theta_on_without_a_copy() -> None:
    learned = small("velo")
    opt = skip_non_finite(bind(learned, perturbed_theta(learned), num_steps=10))
    step = compiled_step(opt, donate=True)
    state = opt.init(PARAMS)
    theta_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(bound_states(state)[0].theta))
    memory = step.lower(PARAMS, state).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= theta_bytes
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < theta_bytes / 4
    before = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(bound_states(state)[0].theta)]
    params = PARAMS
    for _ in range(3):
        params, state = step(params, state)
    after = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(bound_states(state)[0].theta)]
    assert after == before


def test_donation_leaves_the_callers_arrays_alone(learned: LearnedOptimizer) -> None:
    """States made outside of `jit` can be donated: no buffer is in them twice, none is theta's or a parameter's."""
    theta, params = perturbed_theta(learned), fresh(PARAMS)
    opt = step_size_monitor(
        skip_non_finite(
            l2_weight_decay(
                accumulate_above(
                    lambda n: bind(learned, theta, num_steps=n), num_steps=10, max_training_steps=5
                ),
                1e-4,
            )
        )
    )
    step = compiled_step(opt, donate=True)
    first = step(params, opt.init(params))
    second = step(params, opt.init(params))
    assert_equal(first, second)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((theta, params)))


def test_a_single_tensor_shares_no_buffer_either(learned: LearnedOptimizer) -> None:
    theta, params = perturbed_theta(learned), {"w": jnp.ones((3, 2))}
    opt = bind(learned, theta, num_steps=3)
    step = compiled_step(opt, donate=True)
    assert_equal(step(params, opt.init(params)), step(params, opt.init(params)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((theta, params)))


def test_rebind_refuses_what_does_not_fit() -> None:
    learned = small("pacer")
    state = skip_non_finite(bind(learned, perturbed_theta(learned), num_steps=3)).init(PARAMS)
    with pytest.raises(ValueError, match="`theta` must have the structure"):
        rebind(state, {"skip": jnp.zeros(7)})
    with pytest.raises(ValueError, match=r"from `lopt.load` or `lopt.bind`"):
        rebind(optax.adam(0.1).init(PARAMS), perturbed_theta(learned))


def test_rebind_reaches_every_bound_optimizer() -> None:
    learned = small("pacer")
    opt = optax.multi_transform(
        {
            "a": bind(learned, perturbed_theta(learned, 0), num_steps=3),
            "b": bind(learned, perturbed_theta(learned, 1), num_steps=4),
        },
        {"dense": "a", "again": "b", "scalar": "a", "empty": "b"},
    )
    theta = perturbed_theta(learned, 2)
    found = bound_states(rebind(opt.init(PARAMS), theta))
    assert len(found) == 2
    for bound in found:
        assert_equal(bound.theta, theta)


@pytest.mark.parametrize(
    "num_steps", [0, -3, 1.5, True, "100", None, np.float32(3), np.arange(3), jnp.float32(2)]
)
def test_a_wrong_number_of_steps_is_refused(num_steps: Any) -> None:
    with pytest.raises(ValueError, match="`num_steps` must be the number of updates of the run"):
        bind(small("pacer"), {}, num_steps=num_steps)


@pytest.mark.parametrize("num_steps", [1, np.int64(5), np.asarray(5, np.int32), jnp.int32(7)])
def test_whole_numbers_of_every_kind_are_taken(num_steps: Any) -> None:
    check_num_steps(num_steps)


def test_a_traced_number_of_steps_is_taken() -> None:
    learned = small("pacer")
    theta = perturbed_theta(learned)

    @jax.jit
    def init(num_steps: jax.Array) -> BoundState:
        return bind(learned, theta, num_steps=num_steps).init(PARAMS)

    assert int(init(jnp.int32(12)).num_steps) == 12


def resolver(reference: str) -> Any:
    learned = small("pacer")
    theta = learned.init_theta(jax.random.key(0))
    paths = jax.tree_util.tree_leaves_with_path(theta)
    return {"architecture": "pacer"}, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def test_load_binds_inside_its_guard_rails() -> None:
    opt = loading.load("champion", num_steps=60, resolver=resolver)
    state = opt.init(PARAMS)
    (bound,) = bound_states(state)
    assert int(bound.num_steps) == 60
    assert_equal(bound.theta, small("pacer").init_theta(jax.random.key(0)))
    assert int(state.num_skipped_updates) == 0


def test_load_without_a_number_of_steps_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"`num_steps` is missing: .* `lopt.load\('champion', num_steps="):
        loading.load("champion", resolver=resolver)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_training_steps", 0),
        ("max_training_steps", 1.5),
        ("weight_decay", -1.0),
        ("weight_decay", float("nan")),
    ],
)
def test_load_refuses_wrong_guard_rails(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{option}` must be"):
        loading.load("champion", num_steps=60, resolver=resolver, **{option: value})
