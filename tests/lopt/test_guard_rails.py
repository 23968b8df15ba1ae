"""Guard rails: what is not finite is skipped and counted, long runs accumulate, weight decay is a loss term."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    perturbed_theta,
    small,
    train,
)

from lopt.use.binding import bind, bound_states
from lopt.use.guard_rails import accumulate_above, gradients_per_update, l2_weight_decay, skip_non_finite

BAD = (jnp.nan, jnp.inf, -jnp.inf)


class Seen(NamedTuple):
    """State of `spy`: what it was called with last."""

    grads: Any
    value: jax.Array
    calls: jax.Array


def spy() -> optax.GradientTransformationExtraArgs:
    """Gradient descent at rate 1 that remembers the gradient and the loss it got."""

    def init(params: Any) -> Seen:
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        return Seen(zeros, jnp.float32(0), jnp.int32(0))

    def update(grads: Any, state: Seen, params: Any = None, *, value: Any = None, **extra: Any) -> Any:
        del extra
        got = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
        value = jnp.float32(-1.0) if value is None else value
        return jax.tree.map(lambda g: -g, grads), Seen(got, value, state.calls + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def ones(params: Any) -> Any:
    return jax.tree.map(jnp.ones_like, params)


# -- what is not finite


@pytest.mark.parametrize("name", fast_for("hierarchical_gru", "pacer"))
def test_a_bad_tensor_is_a_zero_gradient_to_the_others(name: str) -> None:
    """Bit for bit, in updates and state: nothing of a NaN reaches another tensor or a later step."""
    learned = small(name)
    inner = learned.transform(perturbed_theta(learned), num_steps=6)
    opt = skip_non_finite(inner)
    update = jax.jit(lambda grads, state: opt.update(grads, state, PARAMS, value=jnp.float32(1.0)))
    _, state = update(ones(PARAMS), opt.init(PARAMS))
    zeroed = {**ones(PARAMS), "again": jnp.zeros((4, 3))}
    expected, expected_state = update(zeroed, state)
    for bad in BAD:
        grads = {**ones(PARAMS), "again": jnp.ones((4, 3)).at[2, 1].set(bad)}
        updates, after = update(grads, state)
        assert not np.any(np.asarray(updates["again"]))
        assert_equal({**updates, "again": expected["again"]}, expected)
        assert_equal(after.inner, expected_state.inner)
        assert (int(after.num_skipped_tensors), int(after.num_skipped_updates)) == (1, 0)
    recovered, last = update(ones(PARAMS), after)
    assert float(jnp.max(jnp.abs(recovered["again"]))) > 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((recovered, last)))


@pytest.mark.parametrize("name", fast_for("pacer", among=["pacer", "velo"]))
def test_a_bad_loss_skips_the_whole_update(name: str) -> None:
    learned = small(name)
    opt = skip_non_finite(bind(learned, perturbed_theta(learned), num_steps=6))
    update = jax.jit(lambda loss, state: opt.update(ones(PARAMS), state, PARAMS, value=loss))
    _, state = update(jnp.float32(1.0), opt.init(PARAMS))
    for bad in BAD:
        updates, after = update(jnp.float32(bad), state)
        assert_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
        assert_equal(after.inner, state.inner)
        assert (int(after.num_skipped_tensors), int(after.num_skipped_updates)) == (0, 1)
    assert_equal(update(jnp.float32(0.9), after)[0], update(jnp.float32(0.9), state)[0])


def test_a_run_with_bad_losses_is_the_run_without_them() -> None:
    learned = small("pacer")
    opt = skip_non_finite(bind(learned, perturbed_theta(learned), num_steps=6))

    def run(losses: list[float]) -> Any:
        params, state = PARAMS, opt.init(PARAMS)
        for loss in losses:
            grads = PARAMS if np.isfinite(loss) else jax.tree.map(lambda p: p * jnp.nan, PARAMS)
            updates, state = opt.update(grads, state, params, value=jnp.float32(loss))
            params = optax.apply_updates(params, updates)
        return params, state.inner

    nan, inf = float("nan"), float("inf")
    assert_equal(run([2.0, nan, 1.5, inf, 1.0]), run([2.0, 1.5, 1.0]))


def test_optimizers_that_read_no_loss_are_guarded_too() -> None:
    opt = skip_non_finite(optax.sgd(1.0))
    grads = {"a": jnp.asarray([1.0, jnp.nan]), "b": jnp.ones(2)}
    updates, state = opt.update(grads, opt.init(grads))
    assert_equal(updates, {"a": jnp.zeros(2), "b": -jnp.ones(2)})
    assert int(state.num_skipped_tensors) == 1


def test_layers_of_a_stack_are_judged_one_by_one() -> None:
    opt = skip_non_finite(optax.sgd(1.0), stacked={"blocks": True, "head": False})
    grads = {
        "blocks": {"w": jnp.ones((3, 2)).at[1, 0].set(jnp.nan)},
        "head": jnp.ones((3, 2)).at[0, 0].set(jnp.inf),
    }
    updates, state = opt.update(grads, opt.init(grads))
    np.testing.assert_array_equal(updates["blocks"]["w"], [[-1, -1], [0, 0], [-1, -1]])
    np.testing.assert_array_equal(updates["head"], np.zeros((3, 2)))
    assert int(state.num_skipped_tensors) == 2


# -- weight decay


def test_weight_decay_adds_a_term_and_its_gradient() -> None:
    opt = l2_weight_decay(spy(), 0.3)
    grads = jax.tree.map(lambda p: 0.1 * p + 1.0, PARAMS)
    updates, seen = opt.update(grads, opt.init(PARAMS), PARAMS, value=jnp.float32(2.0))

    def term(params: Any) -> jax.Array:
        return sum(jnp.sum(0.15 * jnp.square(p)) for p in jax.tree.leaves(params))

    np.testing.assert_allclose(seen.value, 2.0 + term(PARAMS), rtol=1e-6)
    expected = jax.tree.map(jnp.add, grads, jax.grad(term)(PARAMS))
    assert_close(seen.grads, expected, rtol=1e-6)
    assert_close(updates, jax.tree.map(jnp.negative, expected), rtol=1e-6)


def test_weight_decay_is_not_rounded_away_in_bfloat16() -> None:
    """1e-6 · 8 next to a gradient of 1 is far below a unit of bfloat16; the optimizer sees it in float32."""
    params = {"w": jnp.full((2,), 8.0, jnp.bfloat16)}
    opt = l2_weight_decay(spy(), 1e-6)
    updates, seen = opt.update(ones(params), opt.init(params), params, value=jnp.bfloat16(1.0))
    np.testing.assert_allclose(seen.grads["w"], 1.0 + 8e-6, rtol=1e-7)
    assert updates["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(seen.value, 1.0 + 0.5e-6 * 128, rtol=1e-7)


def test_no_weight_decay_changes_nothing() -> None:
    opt = l2_weight_decay(spy(), 0.0)
    assert_equal(
        opt.update(PARAMS, opt.init(PARAMS), PARAMS), spy().update(PARAMS, spy().init(PARAMS), PARAMS)
    )


def test_weight_decay_works_without_a_loss_and_needs_the_parameters() -> None:
    opt = l2_weight_decay(optax.sgd(1.0), 0.5)
    updates, _ = opt.update({"w": jnp.ones(2)}, opt.init({"w": jnp.ones(2)}), {"w": jnp.full(2, 4.0)})
    np.testing.assert_array_equal(updates["w"], [-3.0, -3.0])
    with pytest.raises(ValueError, match="needs the parameters"):
        opt.update({"w": jnp.ones(2)}, opt.init({"w": jnp.ones(2)}))


@pytest.mark.parametrize("amount", [-1e-6, float("nan"), float("inf")])
def test_impossible_weight_decay_is_refused(amount: float) -> None:
    with pytest.raises(ValueError, match="`weight_decay` must be a finite number"):
        l2_weight_decay(optax.sgd(1.0), amount)


# -- accumulation


@pytest.mark.parametrize(
    ("num_steps", "most", "every"),
    [(150_000, 150_000, 1), (150_001, 150_000, 2), (1_000_000, 150_000, 7), (9, 3, 3)],
)
def test_no_more_updates_than_allowed(num_steps: int, most: int, every: int) -> None:
    assert gradients_per_update(num_steps, most) == every
    assert num_steps // every <= most
    assert every == 1 or num_steps / (every - 1) > most  # one gradient less per update would be too many


@pytest.mark.parametrize("compiled", [True, False])
def test_the_optimizer_sees_means_and_a_shorter_run(compiled: bool) -> None:
    told: list[int] = []

    def make(num_steps: int) -> optax.GradientTransformationExtraArgs:
        told.append(num_steps)
        return spy()

    opt = accumulate_above(make, num_steps=8, max_training_steps=3)
    assert told == [2]  # ⌈8/3⌉ = 3 gradients per update, ⌊8/3⌋ = 2 updates
    update = jax.jit(opt.update) if compiled else opt.update
    params = {"w": jnp.zeros(2)}
    state = opt.init(params)
    for i in range(8):
        grads = {"w": jnp.asarray([1.0, 10.0]) * (i + 1)}
        updates, state = update(grads, state, params, value=jnp.float32(i))
        calls, is_update = (i + 1) // 3, i % 3 == 2
        assert int(state.inner.calls) == calls
        if is_update:
            # Gradients i−1, i, i+1 times (1, 10), losses i−2, i−1, i.
            np.testing.assert_allclose(updates["w"], [-i, -10.0 * i], rtol=1e-6)
            np.testing.assert_allclose(state.inner.value, i - 1.0, rtol=1e-6)
        else:
            np.testing.assert_array_equal(updates["w"], [0.0, 0.0])


def test_between_updates_the_optimizer_does_not_run() -> None:
    ran: list[int] = []

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        jax.debug.callback(lambda: ran.append(1))
        return grads, state

    opt = accumulate_above(
        lambda _: optax.GradientTransformationExtraArgs(lambda params: (), update),
        num_steps=9,
        max_training_steps=3,
    )
    params = {"w": jnp.zeros(2)}
    step, state = jax.jit(opt.update), opt.init(params)
    for _ in range(9):
        _, state = step(params, state, params)
    jax.effects_barrier()
    assert len(ran) == 3


@pytest.mark.parametrize("name", fast_for("pacer", among=["pacer", "velo"]))
def test_accumulated_run_is_the_run_on_mean_gradients(name: str) -> None:
    learned = small(name)
    theta = perturbed_theta(learned)
    opt = accumulate_above(lambda n: bind(learned, theta, num_steps=n), num_steps=6, max_training_steps=3)
    plain = bind(learned, theta, num_steps=3)
    step, plain_step = jax.jit(opt.update), jax.jit(plain.update)
    (ours, state), (theirs, plain_state) = (PARAMS, opt.init(PARAMS)), (PARAMS, plain.init(PARAMS))
    for i in range(6):
        grads = jax.tree.map(lambda p, i=i: p * (1.0 + 0.5 * (-1) ** i) + 0.1, ours)
        updates, state = step(grads, state, ours, value=jnp.float32(3.0 + (-1) ** i - i))
        ours = optax.apply_updates(ours, updates)
        if i % 2 == 1:
            mean = jax.tree.map(lambda p: p + 0.1, theirs)
            updates, plain_state = plain_step(mean, plain_state, theirs, value=jnp.float32(3.0 - i + 0.5))
            theirs = optax.apply_updates(theirs, updates)
    assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert moved(PARAMS, ours) > 1e-5


def test_bfloat16_gradients_are_accumulated_in_float32() -> None:
    params = {"w": jnp.zeros(1, jnp.bfloat16)}
    opt = accumulate_above(lambda _: spy(), num_steps=256, max_training_steps=1)
    step, state = jax.jit(opt.update), opt.init(params)
    for _ in range(256):
        updates, state = step(
            {"w": jnp.full(1, 1.0078125, jnp.bfloat16)}, state, params, value=jnp.bfloat16(1.0)
        )
    np.testing.assert_allclose(state.inner.grads["w"], 1.0078125, rtol=1e-6)
    assert updates["w"].dtype == jnp.bfloat16


def test_short_runs_carry_no_accumulator() -> None:
    opt = accumulate_above(lambda n: optax.sgd(1.0), num_steps=3, max_training_steps=3)
    state = opt.init(PARAMS)
    assert state.mean_grads is None
    assert_equal(
        opt.update(ones(PARAMS), state, PARAMS)[0], jax.tree.map(lambda p: -jnp.ones_like(p), PARAMS)
    )


def test_accumulation_under_vmap() -> None:
    opt = accumulate_above(lambda n: spy(), num_steps=4, max_training_steps=2)
    lanes = jnp.arange(6.0).reshape(3, 2)
    state = jax.vmap(opt.init)(lanes)
    for i in range(2):
        updates, state = jax.vmap(lambda g, s: opt.update(g, s, g, value=jnp.float32(1.0)))(lanes + i, state)
    np.testing.assert_allclose(updates, -(lanes + 0.5))


# -- all of them


def guarded(learned: Any, theta: Any, *, num_steps: int, most: int, decay: float) -> Any:
    accumulated = accumulate_above(
        lambda n: bind(learned, theta, num_steps=n), num_steps=num_steps, max_training_steps=most
    )
    return skip_non_finite(l2_weight_decay(accumulated, decay))


def test_all_guard_rails_together() -> None:
    """A lost step does not enter the means; the decay enters the mean gradient; the optimizer trains on."""
    learned = small("pacer")
    theta = perturbed_theta(learned)
    opt = guarded(learned, theta, num_steps=10, most=5, decay=0.1)
    plain = l2_weight_decay(bind(learned, theta, num_steps=5), 0.1)
    state, plain_state = opt.init(PARAMS), plain.init(PARAMS)
    nan = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), PARAMS)
    update = jax.jit(opt.update)
    for grads, loss in ((ones(PARAMS), 2.0), (nan, float("nan")), (PARAMS, 1.0)):
        updates, state = update(grads, state, PARAMS, value=jnp.float32(loss))
    mean = jax.tree.map(lambda p: 0.5 * (1.0 + p), PARAMS)
    expected, _ = plain.update(mean, plain_state, PARAMS, value=jnp.float32(1.5))
    assert_close(updates, expected, rtol=1e-4, atol=1e-6)
    assert int(state.num_skipped_updates) == 1
    assert int(bound_states(state)[0].num_steps) == 5


def test_a_guarded_optimizer_trains() -> None:
    learned = small("pacer")
    opt = guarded(learned, learned.init_theta(jax.random.key(0)), num_steps=60, most=30, decay=1e-6)
    params, state = train(opt, PARAMS, opt.init(PARAMS), 60)
    step = compiled_step(opt)
    assert moved(params, step(params, state)[0]) < 0.01  # the schedule has come to its end
    assert float(jnp.max(jnp.abs(params["dense"]["b"]))) < 0.2
    assert moved(PARAMS, params) > 0.3
