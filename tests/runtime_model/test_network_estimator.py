"""Fitted networks: an ensemble knows its disagreement, and held-out rows leave no trace."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
from timed_toys import Inner, Toy, draw, runs, timings

from runtime_model.estimators import COMPARED
from runtime_model.estimators.network import FittedNetwork, NetworkConfig
from runtime_model.features import UNKNOWN, Pair, featurize, read_pairs
from runtime_model.table import TimingTable, timing_table

QUICK = NetworkConfig(num_steps=60, batch_size=32, pair_size=16, set_size=16, learning_rate=1e-2)
STILL = NetworkConfig(
    num_members=3, num_steps=1, batch_size=4, pair_size=8, set_size=8, learning_rate=0.0, weight_decay=0.0
)
"""Keeps its initial weights."""


@pytest.fixture(scope="module")
def table() -> TimingTable:
    return timing_table(timings(draw(np.random.default_rng(0), 96)), Toy)


@pytest.fixture(scope="module")
def inside(table: TimingTable) -> np.ndarray:
    """The fast device's rows of widths below 64."""
    values = [dict(pairs) for pairs in table.pairs]
    return np.asarray([v["family.device"] == "fast" and float(v["family.width"]) < 64 for v in values])


@pytest.fixture(scope="module")
def fitted(table: TimingTable, inside: np.ndarray) -> list[FittedNetwork]:
    """One without the slow device and the large widths, one of everything."""
    return QUICK.fit(table, [inside, np.ones(len(inside), bool)], seed=0)


@pytest.fixture(scope="module")
def still(table: TimingTable) -> FittedNetwork:
    return STILL.fit(table, [np.ones(len(table.pairs), bool)], seed=0)[0]


def test_held_out_rows_change_nothing(
    table: TimingTable, inside: np.ndarray, fitted: list[FittedNetwork]
) -> None:
    """Other categories, a larger range and other seconds in the rows that the first group leaves out."""

    def changed(key: str, value: str | float) -> Pair:
        if key == "family.device":
            return key, "strange"
        return key, value if isinstance(value, str) else 100.0 * value

    pairs = tuple(
        p if kept else [changed(*pair) for pair in p] for p, kept in zip(table.pairs, inside, strict=True)
    )
    other = table._replace(pairs=pairs, log_seconds=np.where(inside, table.log_seconds, 1.0))
    again = QUICK.fit(other, [inside, np.ones(len(inside), bool)], seed=0)
    assert again[0].vocabulary == fitted[0].vocabulary
    for before, after in zip(fitted[0].predict(table.pairs), again[0].predict(table.pairs), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_held_out_category_is_read_as_unknown(
    table: TimingTable, inside: np.ndarray, fitted: list[FittedNetwork]
) -> None:
    slow = read_pairs(Toy(family=Inner(width=32, batch=32, depth=1, device="slow")))
    position = slow.index(("family.device", "slow"))
    without, everything = (featurize([slow], one.vocabulary).value_ids[0, position] for one in fitted)
    assert without == UNKNOWN != everything
    invented = [(key, "invented" if value == "slow" else value) for key, value in slow]
    assert fitted[0].predict([slow]) == fitted[0].predict([invented])
    assert fitted[1].predict([slow]) != fitted[1].predict([invented])


def test_the_range_of_numbers_is_the_groups_own_and_does_not_clamp(
    table: TimingTable, inside: np.ndarray, fitted: list[FittedNetwork]
) -> None:
    widths = np.asarray([float(dict(pairs)["family.width"]) for pairs in table.pairs])
    vocabulary = fitted[0].vocabulary
    column = vocabulary.keys.index("family.width")
    assert vocabulary.high[column] == pytest.approx(np.log1p(widths[inside].max()))
    wide = [read_pairs(Toy(family=Inner(width=w, batch=32, depth=1))) for w in (60, 120, 240, 480)]
    assert (np.abs(np.diff(fitted[0].predict(wide).mean)) > 0.01).all()


def test_members_start_from_different_weights(still: FittedNetwork) -> None:
    time = still.networks.time["params"]
    for kernel in (time["mixing_0"]["pair"]["kernel"], time["out"]["kernel"], time["key_table"]):
        assert kernel.shape[0] == STILL.num_members
        for first, second in ((0, 1), (1, 2), (0, 2)):
            assert np.abs(kernel[first] - kernel[second]).max() > 0.01


def test_the_disagreement_of_members_is_part_of_the_uncertainty(
    table: TimingTable, still: FittedNetwork
) -> None:
    """Three equal networks, shifted by -1, 0 and 1: a variance of 2/3, beside a mean square residual of 1/3."""
    equal = jax.tree.map(lambda leaf: leaf[[0, 0, 0]], still.networks)
    scale = np.asarray([[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    residual = np.asarray([1.0, 0.0, 0.0])
    shifted = dataclasses.replace(still, networks=equal, scale=scale, residual=residual)
    np.testing.assert_allclose(shifted.predict(table.pairs).std, 1.0)
    agreeing = dataclasses.replace(shifted, scale=scale[[1, 1, 1]])
    np.testing.assert_allclose(agreeing.predict(table.pairs).std, np.sqrt(1 / 3))
    assert (still.predict(table.pairs).std > np.sqrt(np.mean(still.residual**2))).all()


def test_a_few_known_seconds_among_many_unknown_still_give_an_uncertainty(table: TimingTable) -> None:
    """Four rows with seconds: one of them is for validation, whatever the draw."""
    few = ~table.is_timed
    few[np.flatnonzero(table.is_timed)[:4]] = True
    assert few.sum() > 12
    for seed in range(4):
        assert (STILL.fit(table, [few], seed=seed)[0].residual > 0.0).all()


def test_the_joint_network_is_an_ensemble() -> None:
    network = COMPARED["network"]
    assert isinstance(network, NetworkConfig)
    assert network.spans_families
    assert network.num_members == 3


def test_the_second_network_learns_which_configurations_run(fitted: list[FittedNetwork]) -> None:
    configs = draw(np.random.default_rng(2), 100)
    probability = fitted[1].valid_probability([read_pairs(config) for config in configs])
    valid = np.asarray([runs(config) for config in configs])
    assert (probability[valid][:, None] > probability[~valid][None]).mean() > 0.9


def test_predictions_depend_neither_on_order_nor_on_what_else_is_predicted(
    table: TimingTable, fitted: list[FittedNetwork]
) -> None:
    """A long configuration in the batch pads the others; so do further rows."""
    short = table.pairs[0]
    long = [*short, *((f"novel_{i}", 1.0) for i in range(20))]
    alone = fitted[1].predict([short])
    for pairs in ([short, long], [short[::-1]], [short] * 70, [long]):
        np.testing.assert_allclose(fitted[1].predict(pairs).mean[0], alone.mean[0], rtol=1e-5)


def test_storage_gives_the_same_predictions_back(table: TimingTable, fitted: list[FittedNetwork]) -> None:
    arrays, info = fitted[0].to_arrays()
    restored = FittedNetwork.from_arrays(arrays, json.loads(json.dumps(info)))
    for before, after in zip(fitted[0].predict(table.pairs), restored.predict(table.pairs), strict=True):
        np.testing.assert_array_equal(before, after)
    former = {**info["sizes"], "embedding_size": 16, "hidden_size": 48}
    with pytest.raises(ValueError, match="embedding_size"):
        FittedNetwork.from_arrays(arrays, {**info, "sizes": former})
