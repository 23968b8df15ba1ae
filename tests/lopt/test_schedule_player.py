"""A run's hyper-parameters, exported, sent as JSON, and played again."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pydantic import ValidationError

from lopt.architectures.ciao import CiaoConfig
from lopt.rules.ciao import CiaoHyperparameters, ciao
from lopt.use.schedule_player import HyperparameterSchedule, Track, export_schedule, play_schedule

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.ones(3)}


def gradients(params: Any, step: jax.Array) -> Any:
    return jax.tree.map(lambda p: p + jnp.sin(3.0 * p + step), params)


def run(opt: optax.GradientTransformationExtraArgs, num_steps: int, **per_step: Any) -> tuple[Any, Any]:
    """The parameters after each step and the hyper-parameters of each; keywords are scanned over."""

    def body(carry: Any, inputs: Any) -> tuple[Any, Any]:
        step, given = inputs
        params, state = carry
        updates, state = opt.update(gradients(params, step), state, params, **given)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, getattr(state, "hyperparameters", None))

    steps = jnp.arange(num_steps, dtype=jnp.float32)
    return jax.jit(lambda: jax.lax.scan(body, (PARAMS, opt.init(PARAMS)), (steps, per_step))[1])()


def controlled(num_steps: int) -> CiaoHyperparameters:
    """What a controller might do: every fifth step it moves every hyper-parameter by a factor; it also switches."""
    usual = CiaoConfig(learning_rate=0.02).hyperparameters()._asdict()
    rng = np.random.default_rng(0)
    outer = -(-num_steps // 5)
    factors = {name: np.exp(0.2 * rng.standard_normal(outer)).repeat(5)[:num_steps] for name in usual}
    values = {name: np.float32(usual[name]) * factors[name].astype(np.float32) for name in usual}
    return CiaoHyperparameters(**jax.tree.map(jnp.asarray, values))


def build(h: dict[str, Any]) -> optax.GradientTransformationExtraArgs:
    return ciao(CiaoHyperparameters(**h))


def test_a_played_run_is_the_recorded_run_bit_for_bit() -> None:
    recorded, used = run(ciao(CiaoConfig().hyperparameters()), 43, hyperparameters=controlled(43))
    text = export_schedule(used).model_dump_json()
    schedule = HyperparameterSchedule.model_validate_json(text)
    assert schedule.num_steps == 43
    assert schedule.is_exact_for(43)
    played, set_by_player = run(play_schedule(schedule, build, num_steps=43), 43)
    jax.tree.map(np.testing.assert_array_equal, set_by_player, used._asdict())
    jax.tree.map(np.testing.assert_array_equal, played, recorded)
    assert float(jnp.max(jnp.abs(played["w"][-1] - PARAMS["w"]))) > 0.05


def test_plateaus_are_kept_by_their_ends() -> None:
    rates = np.float32([0.1, 0.1, 0.1, 0.1, 0.3, 0.2, 0.2, 0.2])
    schedule = export_schedule({"rate": rates, "constant": np.full(8, 0.7, np.float32), "odd": rates[::-1]})
    assert schedule.hyperparameters["rate"].steps == (0, 3, 4, 5, 7)
    assert schedule.hyperparameters["constant"].steps == (0, 7)
    for step in range(8):
        values = schedule.at(step, num_steps=8)
        assert [float(values[name]) for name in ("rate", "constant", "odd")] == [
            rates[step],
            np.float32(0.7),
            rates[7 - step],
        ]
    assert export_schedule({"once": np.float32([0.5])}).hyperparameters["once"].steps == (0,)


@pytest.mark.parametrize("num_steps", [1, 7, 1_000, 4_099])
def test_every_recorded_value_comes_back(num_steps: int) -> None:
    values = np.random.default_rng(num_steps).standard_normal(num_steps).astype(np.float32)
    schedule = export_schedule({"x": values})
    at = jax.jit(jax.vmap(lambda t: schedule.at(t, num_steps=num_steps)["x"]))
    np.testing.assert_array_equal(at(jnp.arange(num_steps)), values)
    np.testing.assert_array_equal(
        at(jnp.arange(num_steps, num_steps + 3)), values[-1]
    )  # then the last one holds


def test_another_horizon_interpolates_over_the_fraction_of_training() -> None:
    schedule = export_schedule({"x": np.float32([0.0, 1.0, 3.0, 3.0])})
    assert not schedule.is_exact_for(8)
    longer = [float(schedule.at(t, num_steps=8)["x"]) for t in range(8)]
    assert longer == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    assert [float(schedule.at(t, num_steps=2)["x"]) for t in range(2)] == [0.0, 3.0]


@pytest.mark.parametrize("num_steps", [61, 300, 5_000])
def test_a_stretched_cosine_is_a_cosine(num_steps: int) -> None:
    cosine = lambda fraction: 0.5 * (1 + np.cos(np.pi * fraction))
    schedule = export_schedule({"rate": cosine(np.arange(500) / 500).astype(np.float32)})
    fraction = np.arange(num_steps) / num_steps
    at = jax.vmap(lambda t: schedule.at(t, num_steps=num_steps)["rate"])
    # Straight lines miss a curve by h²/8·max|f''| at most; beyond the last recorded step its value holds.
    bound = (1 / 500) ** 2 / 8 * np.pi**2 / 2 + 1e-6
    error = np.abs(at(jnp.arange(num_steps)) - cosine(fraction))
    assert np.max(error[fraction <= 499 / 500]) < bound
    assert np.max(error) < cosine(499 / 500) + 1e-6


def test_plays_to_an_optimizer_of_another_codebase() -> None:
    used = {"learning_rate": np.geomspace(0.1, 0.001, 30), "epsilon": np.linspace(1e-6, 1e-2, 30)}
    schedule = export_schedule({name: values.astype(np.float32) for name, values in used.items()})
    make = lambda h: optax.adam(h["learning_rate"], eps=h["epsilon"])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        played, _ = run(play_schedule(schedule, make, num_steps=30), 30)
        params, state = PARAMS, optax.adam(0.1).init(PARAMS)
        for step in range(30):
            now = optax.adam(
                float(np.float32(used["learning_rate"][step])), eps=float(np.float32(used["epsilon"][step]))
            )
            updates, state = now.update(gradients(params, jnp.float32(step)), state, params)
            params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[-1], b, rtol=1e-5, atol=1e-6), played, params)


def test_one_program_plays_every_horizon() -> None:
    schedule = export_schedule(controlled(20))
    traces = 0

    @jax.jit
    def third_update(num_steps: jax.Array) -> Any:
        nonlocal traces
        traces += 1
        opt = play_schedule(schedule, build, num_steps=num_steps)
        state = opt.init(PARAMS)
        for _ in range(3):
            updates, state = opt.update(PARAMS, state, PARAMS, value=jnp.float32(1.0))
        return updates["w"], state.hyperparameters["learning_rate"]

    for num_steps in (20, 3, 700):
        _, rate = third_update(jnp.int32(num_steps))
        np.testing.assert_allclose(rate, schedule.at(2, num_steps=num_steps)["learning_rate"], rtol=1e-6)
    assert traces == 1


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one value per update .* got shapes {'a': \(3,\), 'b': \(2,\)}"):
        export_schedule({"a": np.zeros(3), "b": np.zeros(2)})
    with pytest.raises(ValueError, match="one value per update"):
        export_schedule({"a": np.zeros(())})
    with pytest.raises(ValueError, match="one value per update"):
        export_schedule({})
    with pytest.raises(ValidationError, match="finite number"):
        export_schedule({"a": np.asarray([1.0, math.nan])})
    with pytest.raises(ValidationError, match="must start at 0 and ascend"):
        Track(steps=(0, 2, 2), values=(1.0, 1.0, 1.0))
    with pytest.raises(ValidationError, match="must be equally long, got 2 and 1"):
        Track(steps=(0, 2), values=(1.0,))
    with pytest.raises(ValidationError, match="steps must be below num_steps=2, got 2 for 'a'"):
        HyperparameterSchedule(num_steps=2, hyperparameters={"a": Track(steps=(0, 2), values=(1.0, 2.0))})
    schedule = export_schedule({"a": np.ones(3)})
    with pytest.raises(ValueError, match="`num_steps` must be the number of updates of the run"):
        play_schedule(schedule, build, num_steps=0)
