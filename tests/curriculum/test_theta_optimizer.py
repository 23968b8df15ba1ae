"""How theta moves: every rule against its formula, both clips, and statistics that fill while theta stays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from curriculum.theta_optimizer import CLIPS, ThetaOptimizerConfig, theta_optimizer
from curriculum.update_rules import UPDATE_RULES, AdamConfig, AdamWConfig, RmsPropConfig, SgdConfig
from lopt.config import derive

RATE = 0.1
GRADIENTS = np.random.default_rng(0).normal(size=(6, 3))
START = np.array([1.0, -2.0, 0.5])


def config(**changes: Any) -> ThetaOptimizerConfig:
    fields = {"learning_rate": RATE, "schedule": "constant", "warm_up": 0, "gradient_clip": 1e6, **changes}
    return ThetaOptimizerConfig.model_validate(fields)


def run(how: ThetaOptimizerConfig, gradients: np.ndarray = GRADIENTS) -> tuple[np.ndarray, Any]:
    """Returns theta after every step, and the optimizer's last state."""
    optimizer = theta_optimizer(how, 100)
    theta = {"a": jnp.float32(START)}
    state, seen = optimizer.init(theta), []
    for gradient in gradients:
        updates, state = optimizer.update({"a": jnp.float32(gradient)}, state, theta)
        theta = jax.tree.map(jnp.add, theta, updates)
        seen.append(np.asarray(theta["a"]))
    return np.stack(seen), state


def by_formula(rule: Any) -> np.ndarray:
    """Returns theta after every step, in float64 from the papers' formulas."""
    theta, m, v = START.copy(), np.zeros(3), np.zeros(3)
    if isinstance(rule, RmsPropConfig):
        v = np.full(3, rule.initial_scale)
    seen = []
    for count, g in enumerate(GRADIENTS, 1):
        match rule:
            case AdamConfig() | AdamWConfig():
                m, v = rule.b1 * m + (1 - rule.b1) * g, rule.b2 * v + (1 - rule.b2) * g**2
                root = getattr(rule, "eps_root", 0.0)
                scale = np.sqrt(v / (1 - rule.b2**count) + root) + rule.eps
                direction = m / (1 - rule.b1**count) / scale + getattr(rule, "weight_decay", 0.0) * theta
            case RmsPropConfig():
                v = rule.decay * v + (1 - rule.decay) * g**2
                direction = g / np.sqrt(v + rule.eps)
            case SgdConfig():
                direction = g
        theta = theta - RATE * direction
        seen.append(theta)
    return np.stack(seen)


RULES = [
    AdamConfig(b1=0.5, b2=0.999, eps_root=1e-3),
    AdamWConfig(weight_decay=0.3),
    RmsPropConfig(decay=0.9, eps=1e-3),
    RmsPropConfig(decay=0.8, eps=1e-20, initial_scale=0.0),
    SgdConfig(),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
def test_every_rule_follows_its_formula(rule: Any) -> None:
    np.testing.assert_allclose(run(config(update_rule=rule))[0], by_formula(rule), rtol=2e-5)


def test_every_registered_rule_is_tested_and_comes_back_from_json() -> None:
    assert {rule.rule for rule in RULES} == set(UPDATE_RULES)
    for rule in RULES:
        how = config(update_rule=rule)
        assert ThetaOptimizerConfig.model_validate_json(how.model_dump_json()) == how


def test_clips_by_the_norm_of_all_numbers_or_each_by_itself() -> None:
    """(3, 4, 0) has norm 5: scaled to norm 1 it is (0.6, 0.8, 0); each by itself, (1, 1, 0)."""
    gradient = np.array([[3.0, 4.0, 0.0]])
    moved = {
        clip: START - run(config(clip=clip, gradient_clip=1.0, update_rule=SgdConfig()), gradient)[0][0]
        for clip in CLIPS
    }
    np.testing.assert_allclose(moved["global_norm"], RATE * np.array([0.6, 0.8, 0.0]), atol=1e-6)
    np.testing.assert_allclose(moved["elementwise"], RATE * np.array([1.0, 1.0, 0.0]), atol=1e-6)


def test_statistics_fill_while_theta_stays() -> None:
    """Three steps at rate 0; the fourth is the one that Adam makes with three gradients behind it."""
    cold = config(update_rule=AdamConfig())
    warmed, state = run(derive(cold, statistics_warm_up=3))
    assert np.all(warmed[:3] == np.float32(START))
    always, same_state = run(cold)
    np.testing.assert_allclose(warmed[3:] - warmed[2], always[3:] - always[2], atol=1e-6)
    np.testing.assert_array_equal(state[1][0].nu["a"], same_state[1][0].nu["a"])
    first, _ = run(cold, GRADIENTS[3:])
    assert np.abs(first[0] - START - (warmed[3] - START)).max() > 0.01  # without them, another step


def test_the_warm_up_of_the_rate_comes_after_that_of_the_statistics() -> None:
    moved = np.diff(
        run(config(update_rule=SgdConfig(), statistics_warm_up=2, warm_up=3), np.ones((6, 3)))[0][:, 0]
    )
    np.testing.assert_allclose(moved, -RATE * np.array([0.0, 0.25, 0.5, 0.75, 1.0]), atol=1e-6)


def test_unknown_rules_and_clips_name_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'adam', 'adamw', 'rmsprop', 'sgd'"):
        config(update_rule={"rule": "adma"})
    with pytest.raises(ValueError, match="'global_norm' or 'elementwise'"):
        config(clip="norm")
