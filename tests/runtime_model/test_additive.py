"""The sum of costs finds the prices that the timings were made with, and no negative ones."""

from __future__ import annotations

import numpy as np
import pytest
from timed_toys import Toy, draw, record, seconds

from runtime_model.design import fit_design
from runtime_model.estimators.additive import AdditiveConfig, family_of
from runtime_model.features import read_pairs
from runtime_model.table import timing_table
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig


def test_prices_are_recovered_and_extrapolate() -> None:
    """1e-9 s per operation, 1e-6 s per layer; a hundred times the largest cost is a hundred times the seconds."""
    configs = [c for c in draw(np.random.default_rng(0), 200) if c.family.device == "fast"]
    table = timing_table([record(c, measured=seconds(c)) for c in configs], Toy)
    (fitted,) = AdditiveConfig(ridge=1e-9).fit(table, [np.ones(len(configs), bool)], seed=0)
    for family, found in (("toy", fitted.own), ("any", fitted.any_family)):
        assert (found.prices > 0).all()
        prices = dict(zip(found.names, found.prices * found.level, strict=True))
        assert prices[f"{family}:flops_per_step"] == pytest.approx(1e-9, rel=0.02)
        assert prices[f"{family}:depth"] == pytest.approx(1e-6, rel=0.05)
    huge = Toy.model_validate({"family": {"width": 1024, "batch": 4096, "depth": 4}})
    assert np.exp(fitted.predict([read_pairs(huge)]).mean[0]) == pytest.approx(seconds(huge), rel=0.03)


def test_rows_outside_a_group_play_no_part() -> None:
    configs = draw(np.random.default_rng(0), 60)
    wrong = [record(c, measured=seconds(c) * (1.0 if i < 40 else 1e3)) for i, c in enumerate(configs)]
    table = timing_table(wrong, Toy)
    inside = np.arange(60) < 40
    first, alone = (
        AdditiveConfig().fit(t, [rows], seed=0)[0]
        for t, rows in ((table, inside), (table.rows(inside), np.ones(40, bool)))
    )
    np.testing.assert_allclose(first.predict(table.pairs).mean, alone.predict(table.pairs).mean, rtol=1e-9)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_has_costs_and_a_name_that_prices_can_be_for(name: str) -> None:
    pairs = read_pairs(TaskConfig(family=FAMILIES[name].example()))
    assert family_of(pairs) == name
    costs = {key: value for key, value in pairs if key.startswith("cost.")}
    assert set(costs) == {
        f"cost.{cost}"
        for cost in (
            "num_params",
            "examples_per_step",
            "flops_per_step",
            "inputs_per_step",
            "values_per_step",
            "rows_per_step",
            "reads_per_step",
            "depth",
        )
    }
    assert all(isinstance(value, float) and value >= 0 for value in costs.values())


def test_a_design_is_standardised_and_counts_what_it_has_not_seen() -> None:
    configs = draw(np.random.default_rng(0), 50)
    pairs = [read_pairs(config) for config in configs]
    design = fit_design(pairs)
    matrix = design.matrix(pairs)
    np.testing.assert_allclose(matrix.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(matrix.std(axis=0), 1.0, atol=1e-9)
    assert "cost.depth" in design.names
    assert any(name.endswith("=toy") for name in design.constant)
    assert design.count_unseen(pairs[0]) == 0
    assert design.count_unseen([*pairs[0], ("new", 1.0), ("device", "odd")]) == 2
