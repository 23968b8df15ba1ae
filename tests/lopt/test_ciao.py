"""`ciao` against its equations in float64, its special cases in optax, and the released optimizer's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pydantic import ValidationError

from lopt.architectures.ciao import Ciao, CiaoConfig
from lopt.ciao_rule import CiaoHyperparameters, ciao
from lopt.config import derive
from lopt.registry import UnknownNameError

SHAPES = {"b": (4,), "s": (), "w": (3, 4), "z": (2, 2)}  # z starts at zero


def start() -> dict[str, np.ndarray]:
    params = {
        name: 0.3 * np.sin(1.0 + 0.7 * np.arange(math.prod(shape))).reshape(shape)
        for name, shape in SHAPES.items()
    }
    return {**params, "z": 0.0 * params["z"]}


def gradient(name: str, step: int) -> np.ndarray:
    """A made-up gradient whose size varies a hundredfold from step to step."""
    i, phase = np.arange(math.prod(SHAPES[name])), 1.0 + list(SHAPES).index(name) / 7.0
    return 10.0 ** np.cos(2.0 * step) * np.cos(0.5 * i**1.5 + step * phase).reshape(SHAPES[name])


def single(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def gradients(step: int, scale: float = 1.0) -> dict[str, jax.Array]:
    return single({name: scale * gradient(name, step) for name in SHAPES})


def values(config: CiaoConfig) -> dict[str, float]:
    """The configured hyper-parameters as Python numbers."""
    named = {name: getattr(config, name) for name in CiaoHyperparameters._fields if name != "adamax"}
    return {**named, "adamax": float(config.denominator == "adamax")}


class Reference:
    """The equations in float64, averages written as weighted sums over the whole history."""

    def __init__(self, params: Mapping[str, np.ndarray], clip_epsilon: float = 0.0):
        self.params = {name: p.copy() for name, p in params.items()}
        self.clip_epsilon = clip_epsilon
        self.max_norm = 0.0
        self.seen: list[tuple[dict[str, float], dict[str, np.ndarray]]] = []
        self.norms: list[dict[str, float]] = []
        self.square = {name: np.zeros_like(p) for name, p in params.items()}
        self.square_weight = 0.0

    def average(self, rate_name: str, history: list[Any]) -> Any:
        """Σ (1 − β_s)·Π_{r > s} β_r·x_s, divided by the sum of those weights."""
        rates = [h[rate_name] for h, _ in self.seen]
        weights = [rate * math.prod(1 - later for later in rates[s + 1 :]) for s, rate in enumerate(rates)]
        return sum(w * x for w, x in zip(weights, history, strict=True)) / sum(weights)

    def step(self, grads: Mapping[str, np.ndarray], h: dict[str, float]) -> None:
        norm = math.sqrt(sum(float(np.sum(g**2)) for g in grads.values()))
        self.max_norm = max((1 - h["one_minus_beta_clip"]) * self.max_norm, norm)
        limit = h["clip_fraction"] * self.max_norm / (norm + self.clip_epsilon)
        clipped = {name: min(limit, 1.0) * g for name, g in grads.items()}
        self.seen.append((h, clipped))
        rate = h["one_minus_beta2"]
        weight = (1 - rate) * self.square_weight + rate
        directions = {}
        for name, g in clipped.items():
            root = np.sqrt(self.square[name] / self.square_weight) if self.square_weight else 0.0 * g
            if h["adamax"]:
                scale = np.maximum((1 - rate) * root, np.abs(g))
                self.square[name] = scale**2
            else:
                self.square[name] = (1 - rate) * self.square[name] + rate * g**2
                scale = np.sqrt(self.square[name] / weight)
            mean = self.average("one_minus_beta1", [past[name] for _, past in self.seen])
            directions[name] = mean / (scale + h["epsilon"]) + h["weight_decay"] * self.params[name]
        self.square_weight = 1.0 if h["adamax"] else weight
        self.norms.append({name: float(np.linalg.norm(d)) for name, d in directions.items()})
        for name, direction in directions.items():
            smoothed = self.average("one_minus_beta_trust", [past[name] for past in self.norms])
            size = float(np.linalg.norm(self.params[name]))
            power = h["trust_power"] if direction.ndim >= 2 else h["vector_trust_power"]
            usable = size >= 1e-8 and smoothed >= 1e-8
            trust = max(size / smoothed, h["minimum_trust"]) ** power if usable else 1.0
            self.params[name] = self.params[name] - h["learning_rate"] * trust * direction


CHANGES: dict[int, dict[str, float]] = {
    3: {"learning_rate": 2e-2, "one_minus_beta1": 0.4, "one_minus_beta2": 0.05},
    6: {"epsilon": 0.5, "weight_decay": 0.1, "clip_fraction": 0.3},
    8: {"one_minus_beta_clip": 0.3, "one_minus_beta_trust": 0.4, "trust_power": 0.5},
}
"""The changes under which the released optimizer's numbers below were taken."""
SWITCHES: dict[int, dict[str, float]] = {
    2: {"adamax": 0.0, "learning_rate": 1e-2},
    7: {"adamax": 1.0, "vector_trust_power": 1.0, "minimum_trust": 0.5},
    11: {"adamax": 0.0, "trust_power": 0.0, "one_minus_beta2": 0.5},
}


def assert_follows(ours: Any, theirs: Mapping[str, Any], tolerance: float) -> None:
    for name, begun in start().items():
        reference = np.asarray(theirs[name], np.float64).reshape(begun.shape)
        moved = np.linalg.norm(reference - begun)
        assert moved > 1e-4  # the agreement is not that of two optimizers standing still
        error = np.linalg.norm(np.asarray(ours[name], np.float64) - reference)
        rounding = 5e-7 * np.linalg.norm(
            begun
        )  # of the parameters themselves, 6e-8 at each of some twenty steps
        assert error <= tolerance * moved + rounding, f"{name}: off by {error:.3g}"


def train(
    opt: optax.GradientTransformationExtraArgs, steps: int, options: Callable[[int], dict[str, Any]]
) -> tuple[Any, Any]:
    """The parameters and the state after `steps` jitted updates; `options(step)` are extra keywords."""
    params = single(start())
    state = opt.init(params)
    update = jax.jit(opt.update)
    for step in range(steps):
        updates, state = update(gradients(step), state, params, **options(step))
        params = optax.apply_updates(params, updates)
    return params, state


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


# Printed by the released optimizer (openai/LHOPT, PyTorch, float64) at its example configuration, features off, for
# 12 steps of `gradient` under `CHANGES`; with its denominator_norm "inf" and None.
RELEASED = {
    "adamax": {
        "b": [0.26887127, 0.31329897, 0.21918251, -0.0073942521],
        "s": [0.26809091],
        "w": [
            0.25423672,
            0.29536382,
            0.19079986,
            0.0055258787,
            -0.17930141,
            -0.28225744,
            -0.26701735,
            -0.11694424,
            0.099413558,
            0.24867035,
            0.28789333,
            0.20289867,
        ],
        "z": [-0.00090960952, -0.0007661136, -0.00070688513, 0.0010648138],
    },
    "adam": {
        "b": [0.27498048, 0.31970881, 0.22574896, -0.013048861],
        "s": [0.27347416],
        "w": [
            0.25496399,
            0.29774276,
            0.19027435,
            0.0061423014,
            -0.17745505,
            -0.28365802,
            -0.27246842,
            -0.11650726,
            0.10004248,
            0.2453778,
            0.28861747,
            0.20306441,
        ],
        "z": [-0.00082536455, -0.00056883602, -0.00060335005, 0.001086022],
    },
}


@pytest.mark.parametrize("denominator", ["adamax", "adam"])
def test_the_released_configuration_follows_the_released_optimizer(denominator: Any) -> None:
    learned = derive(CiaoConfig.released(), denominator=denominator).build()
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=12)
    options = lambda step: {  # noqa: E731
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


def test_some_hyperparameters_may_be_given() -> None:
    learned = CiaoConfig().build()
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=10)
    params = single(start())
    state = opt.init(params)
    plain, _ = opt.update(gradients(0), state, params)
    doubled, after = opt.update(gradients(0), state, params, hyperparameters={"learning_rate": 2e-3})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(2 * a, b, rtol=1e-5), plain, doubled)
    assert float(after.hyperparameters.learning_rate) == np.float32(2e-3)
    _, after = opt.update(gradients(1), after, params)  # for that step only: then the schedule goes on
    np.testing.assert_allclose(
        after.hyperparameters.learning_rate, 1e-3 * 0.5 * (1 + math.cos(math.pi * 0.1)), rtol=1e-5
    )


def test_wrong_hyperparameters_name_the_right_ones() -> None:
    opt = ciao(CiaoConfig().hyperparameters())
    params = single(start())
    with pytest.raises(UnknownNameError, match="Did you mean 'learning_rate'"):
        opt.update(gradients(0), opt.init(params), params, hyperparameters={"learning_rates": 1.0})
    with pytest.raises(TypeError, match="must be a CiaoHyperparameters or a mapping"):
        opt.update(gradients(0), opt.init(params), params, hyperparameters=1e-3)
    with pytest.raises(ValueError, match="needs the parameters"):
        opt.update(gradients(0), opt.init(params))


def test_theta_starts_at_the_configured_values() -> None:
    config = CiaoConfig(learning_rate=3e-4, clip_fraction=0.35, one_minus_beta2=2e-3, weight_decay=0.7)
    learned = config.build()
    theta = learned.init_theta(jax.random.key(0))
    assert sorted(theta) == sorted(
        ["log_learning_rate", "log_weight_decay", "log_epsilon", "logit_clip_fraction"]
        + [f"logit_one_minus_beta{suffix}" for suffix in ("1", "2", "_clip", "_trust")]
    )  # the eight that the paper's Table 8 acts on
    assert {(x.shape, x.dtype) for x in theta.values()} == {((), jnp.dtype("float32"))}
    for name, value in learned.hyperparameters(theta)._asdict().items():
        np.testing.assert_allclose(value, values(config)[name], rtol=2e-6, err_msg=name)
    np.testing.assert_allclose(theta["logit_clip_fraction"], math.log(0.35 / 0.65), rtol=1e-6)


def test_what_is_not_learned_stays_as_configured() -> None:
    learned = CiaoConfig(learned=("epsilon",), weight_decay=0.0, clip_fraction=1.0).build()
    theta = learned.init_theta(jax.random.key(0))
    assert list(theta) == ["log_epsilon"]
    assert float(learned.hyperparameters(theta).clip_fraction) == 1.0
    np.testing.assert_allclose(
        learned.hyperparameters({"log_epsilon": jnp.float32(-2)}).epsilon, math.exp(-2)
    )


def test_configurations_that_cannot_be_learned_are_refused() -> None:
    with pytest.raises(ValidationError, match="leave 'weight_decay' out of `learned`"):
        CiaoConfig(weight_decay=0.0)
    with pytest.raises(ValidationError, match="strictly between 0 and 1"):
        CiaoConfig(clip_fraction=1.0)
    with pytest.raises(UnknownNameError, match="Did you mean 'epsilon'"):
        CiaoConfig(learned=("epsilom",))
    with pytest.raises(ValueError, match="`num_steps` must be the number of updates"):
        CiaoConfig(learned=()).build().transform({}, num_steps=0)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_learning_rate_follows_the_schedule(schedule: Any) -> None:
    learned = CiaoConfig(schedule=schedule, learning_rate=0.02).build()
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=8)
    params, state, update = single(start()), opt.init(single(start())), jax.jit(opt.update)
    for step in range(8):
        _, state = update(gradients(step), state, params)
        factor = 0.5 * (1 + math.cos(math.pi * step / 8)) if schedule == "cosine" else 1.0
        np.testing.assert_allclose(state.hyperparameters.learning_rate, 0.02 * factor, rtol=1e-4)


def squared_length(learned: Ciao) -> Callable[[Any, jax.Array], jax.Array]:
    """Compiled: (theta, scale of the gradients) → Σ φ² after four updates."""

    def run(theta: Any, scale: jax.Array) -> jax.Array:
        opt = learned.transform(theta, num_steps=5)
        params = single(start())

        def body(carry: Any, grads: Any) -> tuple[Any, None]:
            updates, state = opt.update(jax.tree.map(lambda g: scale * g, grads), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        steps = jax.tree.map(lambda *g: jnp.stack(g), *(gradients(step) for step in range(4)))
        (params, _), _ = jax.lax.scan(body, (params, opt.init(params)), steps)
        return sum((jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params)), jnp.float32(0.0))

    return jax.jit(run)


@pytest.mark.parametrize("denominator", ["adamax", "adam"])
def test_gradient_in_theta_is_finite(denominator: Any) -> None:
    learned = CiaoConfig(denominator=denominator).build()
    theta = learned.init_theta(jax.random.key(0))
    slope = jax.jit(jax.grad(squared_length(learned)))
    for scale in (0.0, 1e-20, 1.0, 1e5, 1e20):
        found = slope(theta, jnp.float32(scale))
        assert all(bool(jnp.isfinite(g)) for g in found.values()), (scale, found)


def test_gradient_in_theta_is_the_slope() -> None:
    learned = CiaoConfig(learning_rate=0.1, weight_decay=0.3, denominator="adam").build()
    theta, one = learned.init_theta(jax.random.key(0)), jnp.float32(1.0)
    at = squared_length(learned)
    slope = jax.grad(at)(theta, one)
    for name in theta:
        high, low = (at({**theta, name: theta[name] + d}, one) for d in (0.05, -0.05))
        np.testing.assert_allclose(slope[name], (high - low) / 0.1, rtol=0.02, atol=5e-6, err_msg=name)
    for name in ("log_learning_rate", "log_weight_decay", "logit_one_minus_beta2", "logit_clip_fraction"):
        assert abs(float(slope[name])) > 3e-5, name


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
    size = lambda state: sum(x.nbytes for x in jax.tree.leaves(state))  # noqa: E731
    state = ciao(half, state_dtype="bfloat16").init(big)
    assert size(state) < 0.51 * size(ciao(full).init(big))
    updates, state = ciao(half, state_dtype="bfloat16").update(big, state, big)
    assert updates["w"].dtype == jnp.bfloat16
    precise, _ = train(ciao(full), 12, lambda step: {})
    rounded, _ = train(ciao(half, state_dtype="bfloat16"), 12, lambda step: {})
    for name, begun in start().items():
        moved = np.linalg.norm(precise[name] - begun.astype(np.float32))
        assert np.linalg.norm(rounded[name] - precise[name]) < 0.02 * moved


def test_empty_trees_and_donated_states_work() -> None:
    learned = CiaoConfig().build()
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=3)
    updates, state = opt.update({}, opt.init({}), {})
    assert updates == {}
    assert int(state.progress) == 1
    params = single(start())
    donating = jax.jit(lambda state, grads: opt.update(grads, state, params)[1], donate_argnums=0)
    assert int(donating(opt.init(params), gradients(0)).progress) == 1
