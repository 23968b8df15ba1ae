"""The rule of `ciao` against its equations in float64, its special cases in optax, and the released optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ciao_reference import (
    CHANGES,
    RELEASED,
    SHAPES,
    Reference,
    assert_follows,
    gradient,
    gradients,
    single,
    start,
    train,
    values,
)

from lopt.architectures.ciao import CiaoConfig
from lopt.config import derive
from lopt.registry import UnknownNameError
from lopt.rules.ciao import CiaoHyperparameters, ciao

SWITCHES: dict[int, dict[str, float]] = {
    2: {"adamax": 0.0, "learning_rate": 1e-2},
    7: {"adamax": 1.0, "vector_trust_power": 1.0, "minimum_trust": 0.5},
    11: {"adamax": 0.0, "trust_power": 0.0, "one_minus_beta2": 0.5},
}


@pytest.mark.parametrize("changes", [{}, CHANGES, SWITCHES], ids=["constant", "changes", "switches"])
@pytest.mark.parametrize("denominator", ["adamax", "adam"])
@pytest.mark.parametrize("clip_epsilon", [0.0, 1.0])
def test_follows_its_equations(changes: Any, denominator: Any, clip_epsilon: float) -> None:
    config = CiaoConfig(denominator=denominator, learning_rate=0.01)
    reference = Reference(start(), clip_epsilon)
    in_force: list[dict[str, float]] = []
    for step in range(16):
        in_force.append({**(in_force[-1] if in_force else values(config)), **changes.get(step, {})})
        reference.step({name: gradient(name, step) for name in SHAPES}, in_force[step])
    opt = ciao(config.hyperparameters(), clip_epsilon=clip_epsilon)
    params, state = train(opt, 16, lambda step: {"hyperparameters": single(in_force[step])})
    assert_follows(params, reference.params, 1e-5)
    np.testing.assert_allclose(state.max_norm, reference.max_norm, rtol=1e-6)


@pytest.mark.parametrize("denominator", ["adamax", "adam"])
def test_the_released_configuration_follows_the_released_optimizer(denominator: Any) -> None:
    learned = derive(CiaoConfig.released(), denominator=denominator).build()
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=12)
    options = lambda step: {
        "hyperparameters": single({k: v for at in CHANGES if at <= step for k, v in CHANGES[at].items()})
    }
    # One traced program needs the same names at every step: those not changed yet stay at their start.
    everything = {name: values(learned.config)[name] for change in CHANGES.values() for name in change}
    params, _ = train(
        opt, 12, lambda step: {"hyperparameters": {**single(everything), **options(step)["hyperparameters"]}}
    )
    assert_follows(params, RELEASED[denominator], 3e-5)


LAMB = {"trust_power": 1.0, "vector_trust_power": 1.0, "minimum_trust": 0.0, "one_minus_beta_trust": 1.0}
NO_TRUST = {"trust_power": 0.0, "vector_trust_power": 0.0}
TWINS: dict[str, tuple[dict[str, Any], Callable[[], optax.GradientTransformation]]] = {
    "adam": (
        {"denominator": "adam", "weight_decay": 0.0, "one_minus_beta2": 1e-3, "epsilon": 1e-8, **NO_TRUST},
        lambda: optax.adam(0.01, b1=0.9, b2=0.999, eps=1e-8),
    ),
    "adamw": (
        {"denominator": "adam", "weight_decay": 0.3, "one_minus_beta1": 0.3, "epsilon": 0.1, **NO_TRUST},
        lambda: optax.adamw(0.01, b1=0.7, b2=0.99, eps=0.1, weight_decay=0.3),
    ),
    "adamax": (
        {"denominator": "adamax", "weight_decay": 0.0, "epsilon": 0.0, **NO_TRUST},
        lambda: optax.adamax(0.01, b1=0.9, b2=0.99, eps=0.0),
    ),
    "lamb": (
        {"denominator": "adam", "weight_decay": 0.2, "epsilon": 1e-6, **LAMB},
        lambda: optax.lamb(0.01, b1=0.9, b2=0.99, eps=1e-6, weight_decay=0.2),
    ),
}


@pytest.mark.parametrize("name", sorted(TWINS))
def test_special_cases_are_optax(name: str) -> None:
    fields, twin = TWINS[name]
    config = CiaoConfig(learning_rate=0.01, clip_fraction=1.0, learned=(), **fields)
    params, _ = train(config.build().transform({}, num_steps=10**9), 25, lambda step: {})
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs, _ = train(optax.with_extra_args_support(twin()), 25, lambda step: {})
    assert_follows(params, theirs, 3e-5)


def test_clips_to_a_fraction_of_the_decaying_maximum() -> None:
    # One number with gradients 10, 1, 20: the maxima at β = 0.9 are 10, max(9, 1), max(8.1, 20), so that at f = 1/2
    # the first is clipped to 5, the second passes, the third is clipped to 10.
    config = CiaoConfig(one_minus_beta1=1.0, clip_fraction=0.5, one_minus_beta_clip=0.1, learned=())
    opt = ciao(config.hyperparameters())
    params = {"x": jnp.float32(1.0)}
    state = opt.init(params)
    for grad, max_norm, clipped in [(10.0, 10.0, 5.0), (-1.0, 9.0, -1.0), (20.0, 20.0, 10.0)]:
        _, state = opt.update({"x": jnp.float32(grad)}, state, params)
        np.testing.assert_allclose((state.max_norm, state.mean["x"]), (max_norm, clipped), rtol=1e-6)


def test_a_fraction_of_one_never_clips() -> None:
    opt = ciao(CiaoConfig(one_minus_beta1=1.0, clip_fraction=1.0, learned=()).hyperparameters())
    params, state, update = single(start()), opt.init(single(start())), jax.jit(opt.update)
    for step in range(8):
        _, state = update(gradients(step), state, params)
        jax.tree.map(np.testing.assert_array_equal, state.mean, gradients(step))


def test_first_step_is_the_learning_rate_relative_to_each_matrix() -> None:
    params = {"large": 5.0 * jnp.ones((2, 3)), "tiny": 1e-5 * jnp.ones((2, 3)), "vector": jnp.ones(3)}
    opt = ciao(CiaoConfig(learning_rate=0.01, weight_decay=0.0, learned=()).hyperparameters())
    updates, _ = opt.update(jax.tree.map(jnp.ones_like, params), opt.init(params), params)
    # Every direction is g/|g| = 1, so the ratios are 5, 1e-5, which is raised to 1e-3, and none for the vector.
    for name, step in {"large": 0.05, "tiny": 1e-5, "vector": 0.01}.items():
        np.testing.assert_allclose(updates[name], -step, rtol=1e-4)


def test_the_norm_that_the_ratio_divides_by_is_smoothed() -> None:
    config = CiaoConfig(
        learning_rate=1.0, one_minus_beta1=1.0, weight_decay=0.0, epsilon=0.0, clip_fraction=1.0, learned=()
    )
    opt = ciao(derive(config, one_minus_beta_trust=0.25, one_minus_beta2=0.5).hyperparameters())
    params = {"w": 3.0 * jnp.ones((1, 1))}
    state = opt.init(params)
    first, state = opt.update({"w": jnp.ones((1, 1))}, state, params)
    second, state = opt.update({"w": 0.125 * jnp.ones((1, 1))}, state, params)
    # d is 1, then (1/8)/(1/2) = 1/4. N is 1, then (3/4·1/4·1 + 1/4·1/4)/(1 − (3/4)²) = 4/7; LAMB's is 1/4.
    np.testing.assert_allclose(first["w"], -3.0, rtol=1e-6)
    np.testing.assert_allclose(second["w"], -3.0 / (4 / 7) * 0.25, rtol=1e-6)


@pytest.mark.parametrize("exponent", [-30, 17])
def test_the_scale_of_the_gradients_does_not_matter(exponent: int) -> None:
    def run(config: CiaoConfig, scale: float) -> Any:
        opt = ciao(config.hyperparameters(), clip_epsilon=config.clip_epsilon)
        params, state, update = single(start()), opt.init(single(start())), jax.jit(opt.update)
        for step in range(6):
            updates, state = update(gradients(step, scale), state, params)
            params = optax.apply_updates(params, updates)
        return params

    config = derive(CiaoConfig(epsilon=0.0, learned=()), weight_decay=0.1)
    jax.tree.map(np.testing.assert_array_equal, run(config, 1.0), run(config, 2.0**exponent))
    released = derive(config, clip_epsilon=1e-6)
    if (
        exponent < 0
    ):  # its constant is an absolute size: small gradients are shortened more, and early ones forgotten
        assert not np.array_equal(run(released, 1.0)["w"], run(released, 2.0**exponent)["w"])


def test_one_program_serves_every_hyperparameter() -> None:
    traces = 0
    params, usual = single(start()), CiaoConfig().hyperparameters()
    first = gradients(2)
    second = {
        **jax.tree.map(lambda g: 0.9 * g, first),
        "w": -0.9 * first["w"],
    }  # 0.9 times as long: it is clipped

    def two_updates(hyperparameters: CiaoHyperparameters, opt: optax.GradientTransformationExtraArgs) -> Any:
        state = opt.update(first, opt.init(params), params, hyperparameters=usual)[1]
        return opt.update(second, state, params, hyperparameters=hyperparameters)

    @jax.jit
    def compiled(hyperparameters: CiaoHyperparameters) -> Any:
        nonlocal traces
        traces += 1
        return two_updates(hyperparameters, ciao(usual))

    outcomes = {}
    for name in (None, *CiaoHyperparameters._fields):
        changed = usual if name is None else usual._replace(**{name: 0.4 * getattr(usual, name)})
        updates, state = compiled(changed)
        built, _ = two_updates(None, ciao(changed))  # given when the optimizer is made, not when it is used
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-9), updates, built)
        jax.tree.map(np.testing.assert_array_equal, state.hyperparameters, changed)
        seen = updates, state.max_norm, state.weights, state.mean, state.scale, state.update_norm
        outcomes[name] = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(seen))
    assert traces == 1
    silent = {name for name in outcomes if name and outcomes[name] == outcomes[None]}
    assert silent == {"vector_trust_power", "minimum_trust"}  # 0.4 · 0 is 0; no ratio here is near the floor


def test_wrong_hyperparameters_name_the_right_ones() -> None:
    opt = ciao(CiaoConfig().hyperparameters())
    params = single(start())
    with pytest.raises(UnknownNameError, match="Did you mean 'learning_rate'"):
        opt.update(gradients(0), opt.init(params), params, hyperparameters={"learning_rates": 1.0})
    with pytest.raises(TypeError, match="must be a CiaoHyperparameters or a mapping"):
        opt.update(gradients(0), opt.init(params), params, hyperparameters=1e-3)
    with pytest.raises(ValueError, match="needs the parameters"):
        opt.update(gradients(0), opt.init(params))


def test_zero_gradients_only_decay_the_weights() -> None:
    opt = ciao(CiaoConfig(weight_decay=0.5, learning_rate=0.1).hyperparameters())
    params = {"v": jnp.asarray([1.0, -2.0]), "scalar": jnp.float32(0.0), "none": jnp.zeros((0, 3))}
    updates, state = opt.update(jax.tree.map(jnp.zeros_like, params), opt.init(params), params)
    np.testing.assert_allclose(updates["v"], [-0.05, 0.1], rtol=1e-6)
    assert float(updates["scalar"]) == 0.0
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state))


def test_a_spike_is_survived_and_forgotten() -> None:
    opt = ciao(CiaoConfig(learning_rate=0.01).hyperparameters())
    update = jax.jit(opt.update)

    def relative_steps(spike: float) -> np.ndarray:
        params, sizes = single(start()), []
        state = opt.init(params)
        for step in range(1_400):
            updates, state = update(gradients(step, spike if step == 20 else 1.0), state, params)
            sizes.append(float(jnp.linalg.norm(updates["w"]) / jnp.linalg.norm(params["w"])))
        return np.asarray(sizes)

    spiked, calm = relative_steps(1e5), relative_steps(1.0)
    # The average of the norms keeps any step within 1/(1 − β_trust) = 20 learning rates.
    assert max(spiked) <= 0.01 / 0.05
    # The maxima shrink by a hundredth per step: 10⁵ is forgotten after 1 150.
    assert np.max(np.abs(np.log(spiked[600:800] / calm[600:800]))) > 0.1
    np.testing.assert_allclose(spiked[1_300:], calm[1_300:], rtol=0.1)


def test_half_precision_state_halves_the_memory_and_keeps_the_course() -> None:
    full, half = (CiaoConfig(state_dtype=dtype).hyperparameters() for dtype in ("float32", "bfloat16"))
    big = {"w": jnp.ones((64, 64), jnp.bfloat16)}
    size = lambda state: sum(x.nbytes for x in jax.tree.leaves(state))
    state = ciao(half, state_dtype="bfloat16").init(big)
    assert size(state) < 0.51 * size(ciao(full).init(big))
    updates, state = ciao(half, state_dtype="bfloat16").update(big, state, big)
    assert updates["w"].dtype == jnp.bfloat16
    precise, _ = train(ciao(full), 12, lambda step: {})
    rounded, _ = train(ciao(half, state_dtype="bfloat16"), 12, lambda step: {})
    for name, begun in start().items():
        moved = np.linalg.norm(precise[name] - begun.astype(np.float32))
        assert np.linalg.norm(rounded[name] - precise[name]) < 0.02 * moved
