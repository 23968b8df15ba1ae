"""Files that are damaged, hostile or of something else, and writing that fails half-way."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from lopt import published
from lopt.architectures.adafactor_mlp import AdafactorMlpConfig
from lopt.architectures.celo2 import Celo2Config
from lopt.architectures.per_parameter_mlp import PerParameterMlpConfig
from lopt.architectures.rnn_mlp import RnnMlpConfig
from lopt.architectures.velo import VeloConfig
from lopt.published import PublishedFileError, msgpack_format

VELO = VeloConfig.released(lstm_hidden_size=4, mlp_bank_size=3)
ADAFACTOR = AdafactorMlpConfig.released()


@pytest.fixture
def velo(tmp_path: Path) -> Path:
    return saved(tmp_path / "velo", VELO)


@pytest.fixture
def adafactor(tmp_path: Path) -> Path:
    return saved(tmp_path / "adafactor", ADAFACTOR)


def some_theta(config: Any) -> Any:
    shapes = jax.eval_shape(config.build().init_theta, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)


def saved(path: Path, config: Any) -> Path:
    published.save(path, config, some_theta(config))
    return path


def tree_of(path: Path) -> Any:
    return flax.serialization.msgpack_restore(path.read_bytes())


def rewrite(path: Path, tree: Any) -> None:
    path.write_bytes(flax.serialization.msgpack_serialize(tree))


def message(path: Path, architecture: Any = "velo") -> str:
    """What loading says, which always names the file first."""
    with pytest.raises(PublishedFileError) as error:
        published.load(path, architecture=architecture)
    text = str(error.value)
    assert text.startswith(f"`{path}` ")
    return text.removeprefix(f"`{path}` ")


def packed(shape: Any, dtype: Any, elements: Any, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, elements)))


NUMBER = packed((), "float32", b"1234")


def test_all_that_does_not_fit_is_listed_with_both_shapes(velo: Path) -> None:
    tree = tree_of(velo)
    params = tree["params"]
    del params["ff_mod_stack"]["~"]["w0__11"]
    del params["lstm_init_state"]["cell"]
    params["rnn_params"]["linear_1"]["w"] = np.zeros((29, 4), np.float32)
    params["rnn_params"]["step_size"]["b"] = np.zeros((), np.float32)
    params["rnn_params"]["linear_3"] = {"w": np.zeros((2, 2), np.float32)}
    rewrite(velo, tree)
    lines = message(velo).split("\n  ")
    assert lines[0] == "does not fit 'velo' with lstm_hidden_size=4, mlp_bank_size=3, mlp_hidden_size=4:"
    assert sorted(lines[1:]) == [
        "mis-shaped `rnn_params/linear_1/w`, found [29, 4], wanted [30, 4]",
        "mis-shaped `rnn_params/step_size/b`, found [], wanted [1]",
        "missing `ff_mod_stack/~/w0__11`, wanted [3, 3, 4]",
        "missing `lstm_init_state/cell`, wanted [1, 4]",
        "surplus `rnn_params/linear_3/w`, found [2, 2]",
    ]


def test_one_array_of_another_size_does_not_pass_for_all_the_others(velo: Path) -> None:
    tree = tree_of(velo)
    tree["params"]["lstm_init_state"]["hidden"] = np.zeros((1, 7), np.float32)
    rewrite(velo, tree)
    assert message(velo).count("\n") == 1
    assert "mis-shaped `lstm_init_state/hidden`, found [1, 7], wanted [1, 4]" in message(velo)


def test_a_missing_layer_is_no_end_of_the_network(tmp_path: Path) -> None:
    path = saved(tmp_path / "theta", AdafactorMlpConfig.released(hidden_layers=4))
    tree = tree_of(path)
    del tree["params"]["nn"]["~"]["w2"], tree["params"]["nn"]["~"]["b4"]
    rewrite(path, tree)
    assert message(path, "adafactor_mlp").split("\n  ")[1:] == [
        "missing `nn/~/w2`, wanted [4, 4]",
        "missing `nn/~/b4`, wanted [2]",
    ]


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        (Celo2Config.released(), "velo"),
        (VELO, "celo2"),
        (VELO, "adafactor_mlp"),
        (ADAFACTOR, "rnn_mlp"),
        (RnnMlpConfig.released(), "velo"),
        (PerParameterMlpConfig.released(hidden_size=7), "rnn_mlp"),
    ],
)
def test_a_file_of_another_architecture_says_of_which(tmp_path: Path, held: Any, asked: Any) -> None:
    path = saved(tmp_path / "theta", held)
    assert f"; it is a file of {held.architecture!r}: pass it as `architecture`" in message(path, asked)


def test_sizes_out_of_range_are_named(adafactor: Path) -> None:
    tree = tree_of(adafactor)
    network = tree["params"]["nn"]["~"]
    network |= {"w0": np.zeros((39, 1025), np.float32), "b0": np.zeros(1025, np.float32)}
    network["w1"] = np.zeros((1025, 1025), np.float32)
    rewrite(adafactor, tree)
    assert "`hidden_size` would be 1025: Input should be less than or equal to 1024" in message(
        adafactor, "adafactor_mlp"
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_are_brought_to_float32(adafactor: Path, dtype: str) -> None:
    tree = tree_of(adafactor)
    numbers = np.array([1 / 3, -0.0, 5e-8], np.float64).astype(jnp.dtype(dtype))
    tree["params"]["momentum_decays"] = numbers
    rewrite(adafactor, tree)
    _, theta = published.load(adafactor, architecture="adafactor_mlp")
    assert theta["momentum_decays"].dtype == jnp.float32
    assert np.asarray(theta["momentum_decays"]).tobytes() == numbers.astype(np.float32).tobytes()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.array([0, np.nan, np.inf], np.float32), "has 2 values, of 3, that are not finite in float32"),
        (np.array([0, 0, 1e39]), "has 1 values, of 3, that are not finite in float32"),
        (np.zeros(3, np.int32), "has dtype int32; must be one of float32, float64, float16, bfloat16"),
        (np.zeros(3, bool), "has dtype bool; must"),
        (np.zeros(3, np.complex64), "has dtype complex64; must"),
        (np.zeros((0, 3), np.float32), "needs at least one element"),
        (1 + 2j, "is an extension of type 2; an array is of type 1"),
        (msgpack.ExtType(77, b""), "is an extension of type 77"),
        (0.5, "is no array but 0.5"),
        ("text\x1b[31m", "is no array but 'text\\\\x1b[31m'"),
        (None, "is no array but None"),
        (packed((3,), "float32", b"\0" * 11), "has 11 bytes; its shape [3] of float32 needs 12 bytes"),
        (packed((2**40, 2**40), "float32", b"\0" * 12), f"needs {4 * 2**80} bytes"),
        (packed((-3,), "float32", b"\0" * 12), "is not an array's shape, dtype and elements"),
        (packed((True,), "float32", b"\0" * 4), "is not an array's shape, dtype and elements"),
        (packed((3.0,), "float32", b"\0" * 12), "is not an array's shape, dtype and elements"),
        (packed(3, "float32", b"\0" * 12), "is not an array's shape, dtype and elements"),
        (packed((1,) * 9, "float32", b"\0" * 4), "is not readable as an array (9 exceeds max_array_len(8))"),
        (packed((3,), "object", b"\0" * 24), "has dtype object; must"),
        (packed((3,), "float32\x1b", b"\0" * 12), "has dtype float32\\x1b; must"),
        (packed((3,), 7, b"\0" * 12), "is not an array's shape, dtype and elements"),
        (packed((3,), "float32", b"\0" * 12, code=3), "of type 3, a scalar, but has shape [3]"),
        (msgpack.ExtType(1, b"\xdd\xff\xff\xff\xff"), "is not readable as an array (4294967295 exceeds"),
        (msgpack.ExtType(1, b"\x93\x91"), "is not readable as an array (Unpack failed: incomplete input)"),
        (msgpack.ExtType(1, packed((3,), "float32", b"\0" * 12).data + b"!"), "is not readable as an array"),
        (msgpack.ExtType(1, b"\xc1"), "is not readable as an array ("),
    ],
)
def test_damaged_arrays_are_refused_by_name(velo: Path, value: Any, said: str) -> None:
    tree = tree_of(velo)
    tree["params"]["rnn_params"]["linear_1"]["b"] = value
    tree["params"]["lstm_init_state"]["cell"] = value
    velo.write_bytes(
        flax.serialization.msgpack_serialize(tree)
        if not isinstance(value, msgpack.ExtType)
        else msgpack.packb(tree, default=lambda x: packed(x.shape, x.dtype.name, x.tobytes()))
    )
    lines = message(velo).split("\n  ")
    assert lines[0] == "has damaged arrays:"
    assert [line.split("`")[1] for line in lines[1:]] == ["lstm_init_state/cell", "rnn_params/linear_1/b"]
    assert all(said in line for line in lines[1:])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends early, after 0 bytes"),
        (b"PK\x03\x04 an archive", "is not a published file: after a complete value, 14 bytes are left over; "),
        (b"version https://git-lfs.github.com/spec/v1", "it begins with b'version https://git-lfs.'"),
        (b"\x80\x04\x95 a pickle", "11 bytes are left over"),
        (b"\xc1", "is not a published file ("),
        (b"\x07", "holds a single value, not arrays by name"),
        (b"\x80", "holds no arrays"),
        (b"\x90", "holds a single value"),
        (b"\xdd\xff\xff\xff\xff", "is not a published file (4294967295 exceeds max_array_len(0))"),
        (b"\xdf\xff\xff\xff\xff", "is not a published file (4294967295 exceeds max_map_len(1024))"),
        (b"\x81\xa1\xff\x01", "is not a published file ('utf-8' codec can't decode"),
        (b"\x81\xa1a" * 3000, "is not a published file (StackError)"),
        (b"\x81\xa1a" * 20 + b"\x80", "nests maps deeper than 8, at `a/a/a/a/a/a/a/a`"),
        (b"\x82\xa1a\x80\xa1a\x80", "has a map with a name twice"),
        (b"\x81\xa1a\x81\xc4\x01b\x01", "has a name that is no text in `a`"),
        (b"\x81\x01\x01", "is not allowed for map key"),
        (msgpack.packb({"params": {}}), "it lacks `gen_id` and lacks `step`"),
        (msgpack.packb({"params": {}, "gen_id": "", "step": 1, "\x1b": 1}), "it has `\\x1b` besides"),
        (msgpack.packb({"params": {}, "gen_id": "", "step": 1}), "holds no arrays"),
        (msgpack.packb({"params": 1, "gen_id": "", "step": 1}), "has no map of arrays as `params`"),
        (msgpack.packb({"params": {}, "gen_id": 3, "step": 1}), "must have a text as `gen_id`"),
        (msgpack.packb({"params": {}, "gen_id": "", "step": 1.5}), "and a whole number as `step`"),
        (msgpack.packb({"params": {}, "gen_id": "", "step": True}), "and a whole number as `step`"),
        (msgpack.packb({"params": {}, "gen_id": "", "step": NUMBER}), "has dtype float32"),
        (msgpack.packb({"a": {"name": "T", "fields": {"0": "x"}, "values": {}}}), "fields and values do not match"),
        (msgpack.packb({"a": {"name": "T", "fields": {"1": "x"}, "values": {"1": 2}}}), "do not match, at `a`"),
        (msgpack.packb({"a": {"name": "T", "fields": 1, "values": 2}}), "do not match, at `a`"),
        (msgpack.packb({"a": {"b/c": NUMBER}, "a/b": {"c": NUMBER}}), "`a/b/c` is there twice"),
    ],
)  # fmt: skip
def test_what_is_no_published_file_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "theta"
    path.write_bytes(data)
    assert said in message(path)


@pytest.mark.parametrize("step", [np.int64(5), np.array(5, np.int32), np.uint8(5), 5])
def test_steps_may_be_numbers_of_an_array_library(adafactor: Path, step: Any) -> None:
    tree = tree_of(adafactor)
    rewrite(adafactor, {**tree, "step": step})
    assert msgpack_format.decode(adafactor.read_bytes()).step == 5
    assert published.load(adafactor, architecture="adafactor_mlp")[0] == ADAFACTOR


def test_every_shortened_file_is_refused(adafactor: Path) -> None:
    data = adafactor.read_bytes()
    for length in range(len(data)):
        with pytest.raises(PublishedFileError, match=f"ends early, after {length} bytes: copy it again"):
            msgpack_format.decode(data[:length])
    with pytest.raises(PublishedFileError, match="1 bytes are left over"):
        msgpack_format.decode(data + b"\0")


def test_damage_anywhere_is_refused_or_gives_finite_arrays_and_is_never_another_error(
    adafactor: Path,
) -> None:
    data, rng = adafactor.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(4_000):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 4))):
            # Most of a file is numbers, which any bytes can be: aim at the names and headers as well.
            where = rng.choice(
                (rng.randrange(len(data)), rng.randrange(40), len(data) - rng.randrange(1, 60))
            )
            damaged[where] = rng.randrange(256)
        try:
            arrays = msgpack_format.decode(bytes(damaged)).arrays
        except PublishedFileError:
            refused += 1
        else:
            assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in arrays.values())
    assert 1_000 < refused < 4_000


def test_messages_about_very_many_arrays_stay_short(velo: Path) -> None:
    names = [f"{i}{'x' * 500}" for i in range(1_000)]
    rewrite(velo, dict.fromkeys(names, np.zeros(1, np.float32)))
    text = message(velo)
    assert len(text) < 8_000
    assert text.endswith("more")


def test_paths_that_name_no_file_are_refused(tmp_path: Path) -> None:
    for path in ("", " ", "a\0b", "https://example.org/theta", "models:/velo@champion", "gs://bucket/theta"):
        with pytest.raises(ValueError, match="`path` must name a local file"):
            published.load(path, architecture="velo")
        with pytest.raises(ValueError, match="`path` must name a local file"):
            published.save(path, VELO, some_theta(VELO))
    with pytest.raises(FileNotFoundError):
        published.load(tmp_path / "nothing", architecture="velo")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        published.load(tmp_path, architecture="velo")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PublishedFileError, match="is no ordinary file"):
        published.load(tmp_path / "pipe", architecture="velo")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(PublishedFileError, match="has 2147483649 bytes"):
        published.load(tmp_path / "sparse", architecture="velo")


def test_home_folder_and_links_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(Path("~/theta"), VELO)
    (tmp_path / "link").symlink_to(tmp_path / "theta")
    saved(tmp_path / "link", ADAFACTOR)
    assert (tmp_path / "link").is_symlink()
    assert published.load("~/theta", architecture="adafactor_mlp")[0] == ADAFACTOR


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(
    velo: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    before = velo.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            saved(velo, ADAFACTOR)
        with pytest.raises(OSError, match="No space left"):
            saved(velo.with_name("other"), ADAFACTOR)
    assert velo.read_bytes() == before
    assert [path.name for path in velo.parent.iterdir()] == ["velo"]


def test_a_file_is_replaced_with_its_permissions(velo: Path) -> None:
    velo.chmod(0o640)
    saved(velo, ADAFACTOR)
    assert stat.S_IMODE(velo.stat().st_mode) == 0o640
    assert [path.name for path in velo.parent.iterdir()] == ["velo"]
    assert published.load(velo, architecture="adafactor_mlp")[0] == ADAFACTOR


def test_folders_are_neither_replaced_nor_made(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder"):
        saved(tmp_path, VELO)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*; create it first"):
        saved(tmp_path / "none" / "theta", VELO)
    assert not list(tmp_path.iterdir())
