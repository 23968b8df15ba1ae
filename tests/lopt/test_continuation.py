"""More training after a run: the paper's four ways, through every wrapper."""

from __future__ import annotations

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
    moved,
    objective,
    perturbed_theta,
    small,
    train,
)

from lopt.use.binding import bind, bound_states, rebind
from lopt.use.continuation import Continuation, continue_run
from lopt.use.guard_rails import AccumulationState, accumulate_above, l2_weight_decay, skip_non_finite
from lopt.use.layerwise import LayerwiseOptimizer
from lopt.use.monitoring import step_size_monitor

LOSS, GRADS = jax.value_and_grad(objective)(PARAMS)


def finished(name: str, *, num_steps: int = 4, steps: int = 4) -> Any:
    """Returns an architecture, its weights, the bound optimizer, parameters and state after `steps` of a run."""
    learned = small(name)
    theta = perturbed_theta(learned)
    opt = bind(learned, theta, num_steps=num_steps)
    return learned, theta, opt, *train(opt, PARAMS, opt.init(PARAMS), steps)


def next_update(learned: Any, theta: Any, num_steps: int, inner: Any, params: Any) -> Any:
    """Returns what the bare architecture does next when told `num_steps`."""
    loss, grads = jax.value_and_grad(objective)(params)

    @jax.jit
    def update(theta: Any, num_steps: jax.Array, inner: Any) -> Any:
        return learned.transform(theta, num_steps=num_steps).update(grads, inner, params, value=loss)[0]

    return update(theta, jnp.int32(num_steps), inner)


def our_update(opt: Any, state: Any, params: Any) -> Any:
    loss, grads = jax.value_and_grad(objective)(params)
    return jax.jit(lambda s: opt.update(grads, s, params, value=loss)[0])(state)


@pytest.mark.parametrize("name", fast_for("pacer", among=["pacer", "velo"]))
@pytest.mark.parametrize(
    ("how", "num_steps", "progress"),
    [("increase_steps", 10, 4), ("reset_steps", 6, 0), ("naive", 4, 4)],
)
def test_the_state_is_kept_and_told_otherwise(
    name: str, how: Continuation, num_steps: int, progress: int
) -> None:
    learned, theta, opt, params, state = finished(name)
    longer = continue_run(opt, state, params, num_steps=6, how=how)
    expected = state.inner._replace(progress=jnp.int32(progress))
    assert_equal(longer.inner, expected)
    assert int(longer.num_steps) == num_steps
    assert_close(our_update(opt, longer, params), next_update(learned, theta, num_steps, expected, params))


def test_full_reset_is_a_new_run() -> None:
    learned, theta, opt, params, state = finished("velo")
    reset = continue_run(opt, state, params, num_steps=6, how="full_reset")
    assert_equal(reset, bind(learned, theta, num_steps=6).init(params))


def test_full_reset_mixes_no_weights() -> None:
    """The LSTM of `velo` starts from learned values, so a fresh state belongs to its weights."""
    learned, _, opt, params, state = finished("velo", steps=0)
    other = rebind(state, perturbed_theta(learned, 1))
    with pytest.raises(ValueError, match="made with the weights that `state` carries"):
        continue_run(opt, other, params, num_steps=6, how="full_reset")
    longer = continue_run(opt, other, params, num_steps=6)
    assert_equal(longer.theta, other.theta)


def test_increase_steps_is_the_default() -> None:
    _, _, opt, params, state = finished("pacer")
    assert_equal(
        continue_run(opt, state, params, num_steps=3),
        continue_run(opt, state, params, num_steps=3, how="increase_steps"),
    )


def test_reset_steps_keeps_what_corrects_the_bias_of_averages() -> None:
    _, _, opt, params, state = finished("pacer")
    reset = continue_run(opt, state, params, num_steps=6, how="reset_steps")
    assert (int(reset.inner.progress), float(reset.inner.num_updates)) == (0, 4.0)


def test_a_run_that_was_stopped_early_goes_on_from_where_it_is() -> None:
    _, _, opt, params, state = finished("pacer", num_steps=9, steps=4)
    longer = continue_run(opt, state, params, num_steps=6)
    assert (int(longer.inner.progress), int(longer.num_steps)) == (4, 10)


def test_pacer_stands_still_past_its_end_unless_continued() -> None:
    _, _, opt, params, state = finished("pacer")
    step = compiled_step(opt)
    ways = {
        how: continue_run(opt, state, params, num_steps=6, how=how) for how in ("naive", "increase_steps")
    }
    assert moved(params, step(params, ways["naive"])[0]) == 0.0
    assert moved(params, step(params, ways["increase_steps"])[0]) > 1e-3


def test_the_compiled_step_serves_the_continuation() -> None:
    learned = small("pacer")
    opt = skip_non_finite(bind(learned, perturbed_theta(learned), num_steps=2))
    step = compiled_step(opt)
    params, state = PARAMS, opt.init(PARAMS)
    for how in ("increase_steps", "reset_steps", "full_reset", "naive"):
        for _ in range(2):
            params, state = step(params, state)
        state = continue_run(opt, state, params, num_steps=3, how=how)
    step(params, state)
    assert step._cache_size() == 1


@pytest.mark.parametrize("name", fast_for("celo2", "pacer", "velo"))
def test_what_depends_on_the_horizon_counts_its_progress(name: str) -> None:
    """What continuation rests on: a counter that is held against `num_steps` is called `progress`."""
    learned = small(name)
    theta = perturbed_theta(learned)

    @jax.jit
    def two_updates(num_steps: jax.Array) -> Any:
        opt = learned.transform(theta, num_steps=num_steps)
        first, state = opt.update(GRADS, opt.init(PARAMS), PARAMS, value=LOSS)
        second, state = opt.update(GRADS, state, PARAMS, value=LOSS)
        return (first, second), state

    (short, state), (long, _) = two_updates(jnp.int32(3)), two_updates(jnp.int32(1_000))
    counters = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if jax.tree_util.keystr(path[-1:]) == ".progress"
    ]
    assert all(c.dtype == jnp.int32 and c.shape == () and int(c) == 2 for c in counters)
    assert len(counters) == 1 or moved(short, long) == 0.0


def test_an_optimizer_without_progress_is_taken_to_have_finished() -> None:
    _, _, opt, params, state = finished("learnable_sgd", num_steps=9)
    assert int(continue_run(opt, state, params, num_steps=6).num_steps) == 15


# -- through wrappers


def test_through_every_wrapper() -> None:
    learned = small("pacer")
    theta = perturbed_theta(learned)
    opt = step_size_monitor(
        skip_non_finite(l2_weight_decay(optax.chain(optax.clip(1e3), bind(learned, theta, num_steps=3)), 0.1))
    )
    params, state = train(opt, PARAMS, opt.init(PARAMS), 3)
    state = state._replace(inner=state.inner._replace(num_skipped_updates=jnp.int32(7)))
    longer = continue_run(opt, state, params, num_steps=5)
    (before,), (after,) = bound_states(state), bound_states(longer)
    assert (int(after.num_steps), int(after.inner.progress)) == (8, 3)
    assert_equal(after.inner, before.inner)
    assert int(longer.inner.num_skipped_updates) == 7
    reset = continue_run(opt, state, params, num_steps=5, how="full_reset")
    assert int(reset.inner.num_skipped_updates) == 0


def test_every_layer_of_a_stack_goes_on() -> None:
    learned = small("pacer")
    params = {"blocks": {"w": jnp.ones((3, 2, 2))}, "head": jnp.ones(2)}
    layered = LayerwiseOptimizer(learned, stacked={"blocks": True, "head": False})
    opt = bind(layered, perturbed_theta(learned), num_steps=2)
    params, state = train(opt, params, opt.init(params), 2)
    longer = continue_run(opt, state, params, num_steps=5)
    assert_equal(longer.inner, state.inner)
    assert int(longer.num_steps) == 7
    reset = continue_run(opt, state, params, num_steps=5, how="reset_steps")
    np.testing.assert_array_equal(reset.inner.stacks[0].progress, [0, 0, 0])
    assert int(reset.inner.rest.progress) == 0


# -- under accumulation


def accumulating(num_steps: int, most: int) -> Any:
    learned = small("pacer")
    theta = perturbed_theta(learned)
    return skip_non_finite(
        accumulate_above(
            lambda n: bind(learned, theta, num_steps=n), num_steps=num_steps, max_training_steps=most
        )
    )


def summary(state: Any) -> dict[str, Any]:
    accumulation: AccumulationState = state.inner
    (bound,) = bound_states(state)
    return {
        "every": int(accumulation.every),
        "waiting": int(accumulation.num_accumulated),
        "accumulates": accumulation.mean_grads is not None,
        "progress": int(bound.inner.progress),
        "num_steps": int(bound.num_steps),
    }


@pytest.mark.parametrize(
    ("first", "how", "more", "every", "progress", "num_steps"),
    [
        (10, "increase_steps", 5, 2, 5, 7),  # 15 gradients in at most 10 updates; 10 made were 5 of those
        (10, "increase_steps", 10, 2, 5, 10),
        (10, "increase_steps", 11, 3, 3, 7),
        (10, "reset_steps", 10, 1, 0, 10),
        (10, "reset_steps", 25, 3, 0, 8),
        (6, "increase_steps", 4, 1, 6, 10),
        (20, "increase_steps", 10, 3, 6, 10),  # 10 updates of 2 were 6 of 3, the rest is not counted
        (20, "reset_steps", 5, 1, 0, 5),
        (20, "full_reset", 5, 1, 0, 5),
        (10, "full_reset", 40, 4, 0, 10),
        (20, "naive", 5, 2, 10, 10),
    ],
)
def test_the_optimizer_never_sees_more_than_it_may(
    first: int, how: Continuation, more: int, every: int, progress: int, num_steps: int
) -> None:
    opt = accumulating(first, 10)
    params, state = train(opt, PARAMS, opt.init(PARAMS), first)
    longer = continue_run(opt, state, params, num_steps=more, how=how)
    assert summary(longer) == {
        "every": every,
        "waiting": 0,
        "accumulates": every > 1,
        "progress": progress,
        "num_steps": num_steps,
    }
    params, end = train(opt, params, longer, more)
    if how != "naive":
        assert summary(end)["progress"] in (num_steps - 1, num_steps)


def test_gradients_that_wait_are_dropped() -> None:
    opt = accumulating(20, 10)
    params, state = train(opt, PARAMS, opt.init(PARAMS), 3)
    assert summary(state)["waiting"] == 1
    longer = continue_run(opt, state, params, num_steps=30)
    assert summary(longer)["waiting"] == 0
    assert_equal(longer.inner.mean_grads, jax.tree.map(jnp.zeros_like, PARAMS))
    assert float(longer.inner.mean_loss) == 0.0


# -- refusals


def test_unknown_ways_and_wrong_numbers_are_refused() -> None:
    _, _, opt, params, state = finished("pacer", steps=0)
    with pytest.raises(ValueError, match=r"'increase_step'.*Did you mean 'increase_steps'\?"):
        continue_run(opt, state, params, num_steps=3, how="increase_step")  # type: ignore[arg-type]
    for num_steps in (0, 2.5, True):
        with pytest.raises(ValueError, match="`num_steps` must be"):
            continue_run(opt, state, params, num_steps=num_steps)  # type: ignore[arg-type]


def test_only_bound_optimizers_can_be_continued() -> None:
    opt = optax.adam(0.1)
    for how in ("naive", "full_reset", "increase_steps"):
        with pytest.raises(ValueError, match=r"from `lopt.load` or `lopt.bind`"):
            continue_run(opt, opt.init(PARAMS), PARAMS, num_steps=3, how=how)  # type: ignore[arg-type]
