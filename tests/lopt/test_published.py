"""Published weights: read as the release reads them, and written so that it could read ours."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import flax.serialization
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_runs import assert_follows, leaves, read_arrays, run

from lopt import UnknownNameError, derive, published
from lopt.architectures.adafactor_mlp import AdafactorMlpConfig
from lopt.architectures.celo2 import Celo2Config
from lopt.architectures.pacer import PacerConfig
from lopt.architectures.per_parameter_mlp import PerParameterMlpConfig
from lopt.architectures.rnn_mlp import RnnMlpConfig
from lopt.architectures.velo import VeloConfig
from lopt.contract import ArchitectureConfig
from lopt.published import msgpack_format
from lopt.published.per_architecture import TABLES

GOLDEN = {
    "adafactor_mlp": "b_adafac_mlp",
    "celo2": "c_celo2_orth",
    "per_parameter_mlp": "b_mlp",
    "rnn_mlp": "b_rnn_mlp",
    "velo": "a_velo_h32_p8",
}
"""Architecture → golden file."""

CONFIGS: list[ArchitectureConfig] = [
    AdafactorMlpConfig.released(),
    AdafactorMlpConfig.released(hidden_size=16, hidden_layers=1),
    AdafactorMlpConfig.released(hidden_size=3, hidden_layers=8),
    Celo2Config.released(),
    Celo2Config.released(hidden_size=3, hidden_layers=4),
    Celo2Config.released(hidden_size=16, hidden_layers=1),
    PerParameterMlpConfig.released(),
    PerParameterMlpConfig.released(hidden_size=5, hidden_layers=1),
    PerParameterMlpConfig.released(hidden_size=64, hidden_layers=8),
    RnnMlpConfig.released(),
    RnnMlpConfig.released(
        lstm_hidden_size=5,
        mlp_hidden_sizes=(7, 6, 9),
        lstm_to_lstm_size=4,
        lstm_to_mlp_size=3,
        mlp_to_lstm_size=2,
    ),
    RnnMlpConfig.released(mlp_hidden_sizes=(1,)),
    VeloConfig.released(),
    VeloConfig.released(lstm_hidden_size=16, mlp_bank_size=4),
    VeloConfig.released(lstm_hidden_size=30, mlp_bank_size=30, mlp_hidden_size=3),
    VeloConfig.released(lstm_hidden_size=1, mlp_bank_size=1, mlp_hidden_size=1),
]
SMALL_VELO = VeloConfig.released(lstm_hidden_size=4, mlp_bank_size=3)
config_cases = pytest.mark.parametrize(
    "config", CONFIGS, ids=[f"{c.architecture}-{i}" for i, c in enumerate(CONFIGS)]
)


def some_theta(config: ArchitectureConfig) -> Any:
    """Arrays that no two places share, with a negative zero and the extreme float32 numbers in each."""
    extremes = np.array([-0.0, 1e-45, -3.4028235e38], np.float32)
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> jax.Array:
        array = rng.normal(size=leaf.shape).astype(np.float32)
        array.reshape(-1)[: extremes.size] = extremes[: array.size]
        return jnp.asarray(array)

    return jax.tree.map(draw, jax.eval_shape(config.build().init_theta, jax.random.key(0)))


def assert_same_bits(mine: Any, wanted: Any) -> None:
    assert jax.tree.structure(mine) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(wanted), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("architecture", GOLDEN)
def test_golden_file_holds_the_golden_theta(golden: Path, architecture: str) -> None:
    record = msgpack_format.decode((golden / f"{theta_file(architecture)}").read_bytes())
    arrays = read_arrays(golden, f"{GOLDEN[architecture]}.npz")
    wanted = {name.removeprefix("theta/"): a for name, a in arrays.items() if name.startswith("theta/")}
    assert_same_bits(record.arrays, wanted)
    assert (record.gen_id, record.step) == (
        ("golden", 20) if TABLES[architecture].is_record else (None, None)
    )


def theta_file(architecture: str) -> str:
    return f"{GOLDEN[architecture].removesuffix('_orth')}.theta.msgpack"


@pytest.mark.parametrize("architecture", sorted({*GOLDEN} - {"celo2"}))
def test_loaded_file_follows_the_golden_run(golden: Path, architecture: Any) -> None:
    config, theta = published.load(golden / theta_file(architecture), architecture=architecture)
    arrays = read_arrays(golden, f"{GOLDEN[architecture]}.npz")
    assert_follows(run(config.build().transform(theta, num_steps=50), arrays), arrays)


def test_loaded_file_follows_the_golden_run_with_other_settings(golden: Path) -> None:
    config, theta = published.load(golden / theta_file("adafactor_mlp"), architecture="adafactor_mlp")
    arrays = read_arrays(golden, "b_adafac_mlp_bigstep.npz")
    learned = derive(config, step_mult=0.1, exp_mult=0.1).build()
    assert_follows(run(learned.transform(theta, num_steps=50), arrays), arrays)


@pytest.mark.parametrize(("name", "variant"), [("base", "normalized"), ("orth", "orthogonalized")])
def test_loaded_celo2_follows_the_golden_run_in_both_variants(golden: Path, name: str, variant: str) -> None:
    config, theta = published.load(golden / theta_file("celo2"), architecture="celo2")
    arrays = read_arrays(golden, f"c_celo2_{name}.npz")
    optimizer = derive(config, variant=variant).build().transform(theta, num_steps=50)
    path = run(optimizer, arrays, scale=-0.01)
    assert_follows(path, arrays)
    for leaf, wanted in leaves(arrays, "update").items():
        first = (np.asarray(path[0][leaf]) - np.asarray(path[1][leaf])) / 0.01
        np.testing.assert_allclose(first, wanted[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", GOLDEN)
def test_golden_file_is_written_back_byte_for_byte(golden: Path, tmp_path: Path, architecture: Any) -> None:
    source = golden / theta_file(architecture)
    config, theta = published.load(source, architecture=architecture)
    published.save(tmp_path / "copy", config, theta, gen_id="golden", step=20)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


@config_cases
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path, config: Any) -> None:
    theta = some_theta(config)
    published.save(tmp_path / "theta", config, theta)
    again, loaded = published.load(tmp_path / "theta", architecture=config.architecture)
    assert again == config
    assert_same_bits(loaded, theta)


def test_every_published_architecture_is_tested() -> None:
    assert sorted(TABLES) == sorted(GOLDEN) == sorted({config.architecture for config in CONFIGS})
    assert set(TABLES) == set(published.PublishedArchitecture.__args__)


@config_cases
def test_every_array_of_theta_has_its_own_place(config: Any) -> None:
    entries = TABLES[config.architecture].entries(config)
    paths, _ = jax.tree_util.tree_flatten_with_path(
        jax.eval_shape(config.build().init_theta, jax.random.key(0))
    )
    assert sorted("/".join(e.ours) for e in entries) == sorted(
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths
    )
    names = [name for e in entries for name in e.published]
    assert len(set(names)) == len(names)


def test_published_velo_has_the_papers_sizes(tmp_path: Path) -> None:
    config = VeloConfig.released()
    theta = some_theta(config)
    published.save(tmp_path / "theta", config, theta, gen_id="final", step=1_000_000)
    again, _ = published.load(tmp_path / "theta", architecture="velo")
    assert again == VeloConfig(lstm_hidden_size=512, mlp_bank_size=256, dead_mixing_layer=True)
    record = msgpack_format.decode((tmp_path / "theta").read_bytes())
    assert (record.gen_id, record.step) == ("final", 1_000_000)
    assert sum(a.size for a in record.arrays.values()) == sum(x.size for x in jax.tree.leaves(theta))


LSTMState = namedtuple("LSTMState", ["hidden", "cell"])


@flax.struct.dataclass
class ReleasedRecord:
    """The release's own record, as Flax restores it."""

    params: Any
    gen_id: str
    step: int


def test_flax_restores_what_is_saved_into_the_releases_structure(tmp_path: Path) -> None:
    theta = some_theta(SMALL_VELO)
    published.save(tmp_path / "theta", SMALL_VELO, theta, gen_id="g", step=7)
    linear = lambda: {"w": 0, "b": 0}
    layers = ("linear", "linear_1", "linear_2", "rnn/linear", "rnn_to_controls", "step_size")
    names = [f"w0__{i}" for i in range(14)] + ["b0", "w1", "b1", "w2", "b2"]
    target = {
        "lstm_init_state": LSTMState(0, 0),
        "rnn_params": {name: linear() for name in layers},
        "ff_mod_stack": {"~": dict.fromkeys(names, 0)},
    }
    data = (tmp_path / "theta").read_bytes()
    restored = flax.serialization.from_bytes(ReleasedRecord(target, "", 0), data)
    assert (restored.gen_id, restored.step) == ("g", 7)
    params = restored.params
    assert_same_bits(params["lstm_init_state"].hidden, theta["lstm_init"]["hidden"])
    assert_same_bits(params["lstm_init_state"].cell, theta["lstm_init"]["cell"])
    assert_same_bits(params["rnn_params"]["linear"], theta["dead_mixing_layer"])
    assert_same_bits(params["rnn_params"]["rnn/linear"], theta["lstm"])
    bank = params["ff_mod_stack"]["~"]
    assert_same_bits(bank["w2"], theta["bank"]["w2"])
    # Groups of 1, 1, 1, 3, 1, 3, 1, 3, 1 and five times 3 features: the eleventh starts at the nineteenth row.
    assert_same_bits(bank["w0__1"], theta["bank"]["w0"][:, 1:2])
    assert_same_bits(bank["w0__2"], theta["bank"]["w0"][:, 2:3])
    assert_same_bits(bank["w0__10"], theta["bank"]["w0"][:, 18:21])
    # And Flax would have written the same bytes.
    assert flax.serialization.to_bytes(ReleasedRecord(in_order(params), "g", 7)) == data


def in_order(tree: Any) -> Any:
    return {name: in_order(tree[name]) for name in sorted(tree)} if isinstance(tree, dict) else tree


def test_bare_arrays_are_read_for_any_architecture(tmp_path: Path) -> None:
    theta = some_theta(SMALL_VELO)
    published.save(tmp_path / "theta", SMALL_VELO, theta)
    record = flax.serialization.msgpack_restore((tmp_path / "theta").read_bytes())
    (tmp_path / "bare").write_bytes(flax.serialization.msgpack_serialize(record["params"]))
    config, loaded = published.load(tmp_path / "bare", architecture="velo")
    assert config == SMALL_VELO
    assert_same_bits(loaded, theta)


@pytest.mark.parametrize("swapped", [False, True], ids=["in order", "fields swapped"])
def test_lstm_state_in_the_old_form_is_read_and_written_in_the_new(tmp_path: Path, swapped: bool) -> None:
    theta = some_theta(SMALL_VELO)
    published.save(tmp_path / "new", SMALL_VELO, theta)
    record = flax.serialization.msgpack_restore((tmp_path / "new").read_bytes())
    state = record["params"]["lstm_init_state"]
    fields = ("cell", "hidden") if swapped else ("hidden", "cell")
    record["params"]["lstm_init_state"] = {
        "name": "LSTMState",
        "fields": {str(i): name for i, name in enumerate(fields)},
        "values": {str(i): state[name] for i, name in enumerate(fields)},
    }
    (tmp_path / "old").write_bytes(flax.serialization.msgpack_serialize(record))
    config, loaded = published.load(tmp_path / "old", architecture="velo")
    assert_same_bits(loaded, theta)
    published.save(tmp_path / "again", config, loaded)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "new").read_bytes()


def test_dead_layer_is_kept_and_read_by_nothing(tmp_path: Path) -> None:
    theta = some_theta(SMALL_VELO)
    published.save(tmp_path / "theta", SMALL_VELO, theta)
    config, loaded = published.load(tmp_path / "theta", architecture="velo")
    assert_same_bits(loaded["dead_mixing_layer"], theta["dead_mixing_layer"])
    loaded = jax.tree.map(lambda x: jnp.clip(x, -1, 1), loaded)
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}

    @jax.jit
    def step(theta: Any) -> Any:
        optimizer = config.build().transform(theta, num_steps=10)
        return optimizer.update(params, optimizer.init(params), params, value=jnp.float32(1.0))

    others = {**loaded, "dead_mixing_layer": jax.tree.map(lambda x: x + 3.0, loaded["dead_mixing_layer"])}
    assert_same_bits(step(others), step(loaded))


def test_weights_trained_here_travel_without_a_dead_layer(tmp_path: Path) -> None:
    config = VeloConfig(lstm_hidden_size=4, mlp_bank_size=3, state_dtype="bfloat16")
    theta = some_theta(config)
    published.save(tmp_path / "theta", config, theta)
    again, loaded = published.load(tmp_path / "theta", architecture="velo")
    assert again == SMALL_VELO
    dead = loaded.pop("dead_mixing_layer")
    assert not np.any(dead["w"])
    assert not np.any(dead["b"])
    assert_same_bits(loaded, theta)


def test_celo2_trained_here_travels_with_one_output(tmp_path: Path) -> None:
    config = Celo2Config(without_gradient="step", variant="orthogonalized", learning_rate=0.1)
    theta = some_theta(config)
    published.save(tmp_path / "theta", config, theta)
    again, loaded = published.load(tmp_path / "theta", architecture="celo2")
    assert again == Celo2Config.released()
    last = {name: loaded["network"].pop(name) for name in ("w2", "b2")}
    for name, array in last.items():
        assert_same_bits(array[..., :1], theta["network"].pop(name))
        assert not np.any(array[..., 1:])
    assert_same_bits(loaded, theta)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (VeloConfig.released(step_mult=0.01), ["`step_mult` must be 0.001, got 0.01"]),
        (AdafactorMlpConfig(), ["`max_gradient` must be None", "`min_momentum_decay` must be None, got 0.0"]),
        (Celo2Config(), ["`without_gradient` must be 'step', got 'stay'"]),
        (Celo2Config.released(output_units=4), ["`output_units` must be at most 3, got 4"]),
        (PerParameterMlpConfig(), ["`features` must be ('gradient', 'param', 'momentum')", "`decays` must"]),
        (RnnMlpConfig(), ["`learned_clip` must be False", "`train_loss_decay` must be 0.9, got 0.95"]),
        (
            derive(SMALL_VELO, features=tuple(reversed(SMALL_VELO.features))),
            ["`features` must be ('gradient', "],
        ),
    ],
    ids=["multiplier", "corrected", "still", "outputs", "paper", "learned clip", "order of features"],
)
def test_settings_that_a_file_cannot_hold_are_refused(tmp_path: Path, config: Any, fields: list[str]) -> None:
    with pytest.raises(ValueError, match="holds weights alone") as error:
        published.save(tmp_path / "theta", config, some_theta(config))
    for field in fields:
        assert field in str(error.value)
    assert not list(tmp_path.iterdir())


def test_theta_that_does_not_fit_is_refused_with_every_problem(tmp_path: Path) -> None:
    theta = some_theta(SMALL_VELO)
    theta["extra"] = jnp.zeros(2)
    theta["controls"] = {"w": theta["controls"]["w"].T, "b": np.zeros(3)}
    theta["lstm"]["b"] = theta["lstm"]["b"].at[0].set(jnp.nan)
    theta["bank"]["w1"] = theta["bank"]["w1"].astype(jnp.bfloat16)
    del theta["step_scalar"]["b"]
    with pytest.raises(ValueError, match="does not fit the configuration") as error:
        published.save(tmp_path / "theta", SMALL_VELO, theta)
    for problem in (
        "missing `step_scalar/b`, wanted [1]",
        "surplus `extra`, found [2]",
        "mis-shaped `controls/w`, found [3, 4], wanted [4, 3]",
        "`controls/b` must be float32, got float64",
        "`bank/w1` must be float32, got bfloat16",
        "`lstm/b` has values that are not finite",
    ):
        assert problem in str(error.value)
    assert not list(tmp_path.iterdir())


def test_architectures_without_a_published_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown published architecture 'vello'.*Did you mean 'velo'"
    ):
        published.load(tmp_path / "theta", architecture="vello")  # type: ignore[arg-type]
    config = PacerConfig()
    with pytest.raises(UnknownNameError, match="unknown published architecture 'pacer'"):
        published.save(tmp_path / "theta", config, some_theta(config))


@pytest.mark.parametrize(("gen_id", "step"), [("g", -1), ("g", 1.0), ("g", 2**63), (b"g", 1), ("g", True)])
def test_what_is_no_record_is_refused(tmp_path: Path, gen_id: Any, step: Any) -> None:
    with pytest.raises(ValueError, match="must be a text and `step` a whole number"):
        published.save(tmp_path / "theta", SMALL_VELO, some_theta(SMALL_VELO), gen_id=gen_id, step=step)
