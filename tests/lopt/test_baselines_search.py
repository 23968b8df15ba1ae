"""The baselines with many hyper-parameters: NAdamW, OptList and Adam8p, and their search spaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_runs import assert_follows, leaves, read_arrays, run

from lopt.baselines.adam8p import Adam8pSetting, adam8p, sample_adam8p
from lopt.baselines.nadamw import (
    CORRECTED,
    RELEASED,
    NAdamWForm,
    NAdamWSetting,
    learning_rate,
    nadamw,
    sample_nadamw,
)
from lopt.baselines.opt_list import TRIAL_ORDER, opt_list_entry

TASKSET = NAdamWForm(l2_sign=-1.0, warmup_outlasts_plateau=False)
GOLDEN_STEPS = 25
GOLDEN_SETTINGS = {
    "plain": NAdamWSetting(1e-2),
    "no_nesterov": NAdamWSetting(1e-2, use_nesterov=False),
    "adamw_wd": NAdamWSetting(1e-2, 0.95, 0.99, 1e-3, adamw_weight_decay=0.1),
    "l2_wd": NAdamWSetting(1e-2, l2_weight_decay=0.1),
    "cosine_no_warmup": NAdamWSetting(1e-2, min_learning_rate_mult=0.1, constant_fraction=0.3),
    "cosine_warmup_const": NAdamWSetting(
        1e-2, min_learning_rate_mult=0.0, constant_fraction=0.5, warmup_fraction=0.1
    ),
    "cosine_warmup_gt_const": NAdamWSetting(
        1e-2, min_learning_rate_mult=0.2, constant_fraction=0.1, warmup_fraction=0.4
    ),
    "cosine_warmup_const0": NAdamWSetting(
        1e-2, min_learning_rate_mult=0.0, constant_fraction=0.0, warmup_fraction=0.2
    ),
    **{f"opt_list_{i}": opt_list_entry(i) for i in range(3)},
}


@pytest.mark.parametrize("name", GOLDEN_SETTINGS)
def test_the_released_form_follows_the_release(golden: Path, name: str) -> None:
    arrays = read_arrays(golden, "d_nadamw.npz")
    path = {f"params/{leaf}": value for leaf, value in leaves(arrays, f"{name}/params").items()}
    optimizer = nadamw(GOLDEN_SETTINGS[name], jnp.int32(GOLDEN_STEPS), form=RELEASED)
    wanted = {**arrays, **path}
    assert_follows(run(optimizer, wanted), wanted)


@pytest.mark.parametrize("name", [name for name in GOLDEN_SETTINGS if name.startswith("cosine")])
def test_the_released_schedule_follows_the_release(golden: Path, name: str) -> None:
    rates = read_arrays(golden, "d_nadamw.npz")[f"{name}/lr"]
    steps = jnp.arange(len(rates), dtype=jnp.int32)
    ours = jax.vmap(lambda t: learning_rate(GOLDEN_SETTINGS[name], t, jnp.int32(GOLDEN_STEPS), form=RELEASED))
    np.testing.assert_allclose(ours(steps), rates, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("setting", "form", "expected"),
    [
        # T = 100, plateau to 50, warm-up to 10: by hand at steps 0, 5, 30, 75, 100, 200.
        ((1.0, 0.2, 0.5, 0.1), CORRECTED, [0.0, 0.5, 1.0, 0.6, 0.2, 0.2]),
        ((1.0, 0.2, 0.5, 0.1), RELEASED, [0.0, 0.1, 0.6, 0.6, 0.2, 0.2]),  # it rises until the cosine begins
        ((1.0, 0.2, 0.5, 0.0), RELEASED, [1.0, 1.0, 1.0, 0.6, 0.2, 0.2]),
        (
            (1.0, 0.2, 0.0, 0.1),
            CORRECTED,
            [1.0, None, None, None, 0.2, 0.2],
        ),  # no plateau: no room for a warm-up
        ((1.0, 0.2, 1.0, 0.1), CORRECTED, [0.0, 0.5, 1.0, 1.0, None, None]),  # no cosine
    ],
)
def test_schedules_by_hand(setting: Any, form: NAdamWForm, expected: list[float | None]) -> None:
    peak, minimum, plateau, warmup = setting
    s = NAdamWSetting(peak, min_learning_rate_mult=minimum, constant_fraction=plateau, warmup_fraction=warmup)
    for step, rate in zip((0, 5, 30, 75, 100, 200), expected, strict=True):
        ours = float(learning_rate(s, jnp.int32(step), jnp.int32(100), form=form))
        assert np.isfinite(ours)
        if rate is not None:
            assert ours == pytest.approx(rate, abs=1e-6)


def numpy_nadamw(s: NAdamWSetting, grads: list[np.ndarray], rates: list[float], sign: float) -> np.ndarray:
    p = np.ones(3)
    m, v = np.zeros(3), np.zeros(3)
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        g = g + sign * s.l2_weight_decay * p
        m = s.beta1 * m + (1 - s.beta1) * g
        v = s.beta2 * v + (1 - s.beta2) * g**2
        a = rate * np.sqrt(1 - s.beta2**t) / (1 - s.beta1**t)
        top = s.beta1 * m + (1 - s.beta1) * g if s.use_nesterov else m
        p = p - a * (top / (np.sqrt(v) + s.epsilon) + s.adamw_weight_decay * p)
    return p


@pytest.mark.parametrize("form", [CORRECTED, RELEASED, TASKSET])
@pytest.mark.parametrize("nesterov", [True, False])
def test_nadamw_is_its_formula(form: NAdamWForm, nesterov: bool) -> None:
    s = NAdamWSetting(0.1, 0.8, 0.95, 1e-3, nesterov, 0.2, 0.3, 0.2, 0.1, 0.4)
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=3) for _ in range(10)]
    rates = [float(learning_rate(s, jnp.int32(t), jnp.int32(10), form=form)) for t in range(10)]
    traced = jax.tree.map(jnp.float32, s)
    optimizer = nadamw(traced, jnp.int32(10), form=form)
    params = {"w": jnp.ones(3)}
    state = optimizer.init(params)
    for g in grads:
        updates, state = optimizer.update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        params = {"w": params["w"] + updates["w"]}
    np.testing.assert_allclose(params["w"], numpy_nadamw(s, grads, rates, form.l2_sign), rtol=1e-5)


@pytest.mark.parametrize(("form", "shrinks"), [(CORRECTED, True), (RELEASED, False)])
def test_only_the_corrected_l2_term_shrinks_weights(form: NAdamWForm, shrinks: bool) -> None:
    optimizer = nadamw(NAdamWSetting(1e-2, l2_weight_decay=0.1), jnp.int32(10), form=form)
    params = {"w": jnp.asarray([2.0, -3.0])}
    updates, _ = optimizer.update({"w": jnp.zeros(2)}, optimizer.init(params), params)
    assert bool(jnp.all((updates["w"] * params["w"] < 0) == shrinks))


@pytest.mark.parametrize("build", [lambda: nadamw(NAdamWSetting(), 10), lambda: adam8p(sample_adam8p(0), 10)])
def test_missing_parameters_name_the_fix(build: Any) -> None:
    optimizer = build()
    grads = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="needs the parameters: call"):
        optimizer.update(grads, optimizer.init(grads))


def test_the_list_begins_as_published(golden: Path) -> None:
    for index, published in enumerate(json.loads((golden / "d_opt_list_first10.json").read_text())):
        ours = opt_list_entry(index)._asdict()
        assert set(ours) == set(published)
        for key, value in published.items():
            assert ours[key] == pytest.approx(value, rel=1e-9, abs=0), (index, key)


def test_the_list_is_the_search_in_another_order() -> None:
    """Counts of the published thousand: 502 with Nesterov, 359/314/327 decays, 516 warm-ups, 509 minima."""
    assert sorted(TRIAL_ORDER) == list(range(1_000))
    points = [opt_list_entry(i) for i in range(1_000)]
    assert sum(p.use_nesterov for p in points) == 502
    decays = [(p.adamw_weight_decay > 0, p.l2_weight_decay > 0) for p in points]
    assert [decays.count(kind) for kind in ((True, False), (False, True), (True, True))] == [359, 314, 327]
    assert sum(p.warmup_fraction > 0 for p in points) == 516
    assert sum(p.min_learning_rate_mult > 0 for p in points) == 509
    rates = [p.learning_rate for p in points]
    assert (min(rates), max(rates)) == pytest.approx((1.007223428077266e-05, 0.9945289112181416), rel=1e-12)
    assert points[0] == sample_nadamw(251)


def test_adam8p_is_its_formula() -> None:
    s = Adam8pSetting(0.1, 0.8, 0.9, 1e-2, l1=0.3, l2=0.2, linear_decay=5e-5, exponential_decay=2e-4)
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=3) for _ in range(8)]
    optimizer = adam8p(jax.tree.map(jnp.float32, s), jnp.int32(10))
    params = {"w": jnp.asarray([1.0, -1.0, 0.5])}
    state = optimizer.init(params)
    p, m, v = np.asarray([1.0, -1.0, 0.5]), np.zeros(3), np.zeros(3)
    for t, grad in enumerate(grads):
        updates, state = optimizer.update({"w": jnp.asarray(grad, jnp.float32)}, state, params)
        params = {"w": params["w"] + updates["w"]}
        g = grad + 2 * 0.2 * p + 0.3 * np.sign(p)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        # Ten steps instead of ten thousand: each counts for a thousand, so the linear factor is 1 − 0.05 t.
        rate = 0.1 * (1 - 0.05 * t) * np.exp(-0.2 * t)
        root = np.sqrt(v / (1 - 0.9 ** (t + 1)) + 1e-10)
        p = p - rate * m / (1 - 0.8 ** (t + 1)) / (root + 1e-2)
        np.testing.assert_allclose(params["w"], p, rtol=1e-5)


def test_adam8p_stands_still_where_the_linear_decay_has_ended() -> None:
    s = Adam8pSetting(0.1, 0.9, 0.999, 1e-8, l1=0.0, l2=0.0, linear_decay=5e-4, exponential_decay=1e-6)
    optimizer = adam8p(s, jnp.int32(10_000))
    params = {"w": jnp.ones(2)}
    state = optimizer.init(params)
    for step, moves in ((1_999, True), (2_000, False), (9_000, False)):
        updates, _ = optimizer.update(params, state._replace(step=jnp.int32(step)), params)
        assert bool(jnp.any(updates["w"] != 0)) == moves


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (
            0,
            (
                0.0008696040132105586,
                0.9274299427840572,
                0.9958640026061601,
                0.0012119407238482059,
                6.499698237449666e-05,
                0.006502000785097662,
                2.054762512591133e-06,
                2.11193718864315e-06,
            ),
        ),
        (
            24,
            (
                4.366723868659872,
                0.9371871932803514,
                0.0018317404678640514,
                7.258968255518783e-08,
                1.7762626574329365e-05,
                0.045558447051478435,
                9.758142935005692e-05,
                0.00011244989820509874,
            ),
        ),
    ],
)
def test_adam8p_trials_are_the_published_ones(trial: int, expected: tuple[float, ...]) -> None:
    assert tuple(sample_adam8p(trial)) == pytest.approx(expected, rel=1e-9, abs=0)
