"""`keirin data`, from files to a task that trains on them: what is listed, prepared, shown and refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import cifar_record, images, write_mnist
from PIL import Image
from typer.testing import CliRunner

import flows.commands.show  # noqa: F401 - Prefect keeps the streams that it is imported with: not a runner's
from flows.cli import app
from flows.commands.data_display import decode, rows
from flows.commands.data_preparation import image_request, prepare
from flows.commands.errors import guarded
from lopt.types import SPLITS
from storage.datasets import WorkspaceReader
from storage.datasets_hub import HUB
from storage.workspace import Workspace
from task_generator.datasets import images as image_sets
from task_generator.datasets import placement
from task_generator.datasets.images import DATASETS, load
from task_generator.datasets.placement import DatasetTooLargeError
from task_generator.datasets.prepared import DatasetNotPreparedError
from task_generator.datasets.public import PUBLIC_IMAGES, PUBLIC_TEXTS
from task_generator.datasets.source import resize_bytes
from task_generator.datasets.text import load_text, whole_text
from task_generator.families.mlp import MlpConfig
from task_generator.task_config import TaskConfig

COMMANDS = ("list", "prepare", "show")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that task families find by themselves, through the entry point."""
    folder = tmp_path / "home"
    monkeypatch.setenv("KEIRIN_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    load.cache_clear()
    whole_text.cache_clear()
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_mnist(tmp_path / "files")
    return tmp_path / "files"


def keirin(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "data", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Returns the exit code and the one line that a command prints on standard error."""
    code = guarded(lambda: app(["data", *arguments]), debug=False)
    line = capsys.readouterr().err
    assert line.startswith("Error: ")
    assert line.count("\n") == 1
    assert "unexpected" not in line
    return code, line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    code, output = keirin(command, "--help")
    assert code == 0
    assert "--home" in output
    assert len(re.findall(r"--[a-z]", output)) >= 3


def test_help_of_the_group_names_its_commands() -> None:
    code, output = keirin("--help")
    assert code == 0
    assert all(re.search(rf"│ {command} ", output) for command in COMMANDS)


def test_the_list_has_every_data_set_and_creates_nothing(home: Path) -> None:
    code, output = keirin("list", "--json")
    listed = {row["name"]: row for row in json.loads(output)}
    assert code == 0
    assert set(listed) >= {"digits", "english_subwords", *PUBLIC_IMAGES, *PUBLIC_TEXTS}
    assert listed["digits"]["where"] == "embedded"
    assert listed["cifar10"] == {
        "name": "cifar10", "kind": "32×32×3", "classes": 10, "examples": 60_000, "where": "not here", "bytes": 0,
    }  # fmt: skip
    assert "keirin data prepare NAME [--from FOLDER]" in keirin("list")[1]
    assert not home.exists()


def test_mnist_is_prepared_listed_shown_and_trained_on(home: Path, files: Path, tmp_path: Path) -> None:
    config = TaskConfig(
        family=MlpConfig(hidden_size=4, num_layers=1, image_size=7, batch_size=8, dataset="mnist")
    )
    with pytest.raises(DatasetNotPreparedError, match=r"`keirin data prepare mnist`.*\[data\]"):
        config.build()

    code, output = keirin("prepare", "mnist", "--from", str(files), "--size", "7")
    assert code == 0
    assert re.match(r"Prepared mnist \(native, 7\): 0\.1 MB in [0-9.]+ s\.", output.strip().splitlines()[-1])
    assert "mnist is complete" in keirin("prepare", "mnist", "--from", str(files), "--size", "7")[1]
    row = next(row for row in rows(Workspace()) if row["name"] == "mnist")
    assert (row["where"], row["examples"]) == ("prepared: native, 7×7", 80)
    assert row["bytes"] > 80 * 28 * 28

    sheet = tmp_path / "sheets" / "mnist.png"
    code, output = keirin("show", "mnist", "--size", "7", "--out", str(sheet))
    assert code == 0
    assert "train 48, inner_valid 6, outer_valid 6, test 20" in output
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 10

    family = config.build()
    assert family.data.train.images.shape == (48, 7, 7, 1)


def test_a_size_that_was_not_prepared_is_resized_when_loaded(files: Path) -> None:
    keirin("prepare", "mnist", "--from", str(files))
    native = WorkspaceReader().read_images("mnist", 28)
    assert native is not None
    data = load("mnist", 11)
    for split in SPLITS:
        expected = resize_bytes(np.asarray(native[split][0]), 11)
        np.testing.assert_array_equal(getattr(data, split).images, expected)
        np.testing.assert_array_equal(getattr(data, split).labels, native[split][1])


def test_public_metadata_and_the_loader_table_agree() -> None:
    stems = {name.removesuffix("_bytes").removesuffix("_32k") for name in PUBLIC_TEXTS}
    assert set(HUB) == set(PUBLIC_IMAGES) | stems
    for name in PUBLIC_IMAGES:
        assert HUB[name].label is not None
        assert image_request(name).side == PUBLIC_IMAGES[name].native_size
    assert all(HUB[stem].label is None for stem in stems)


def test_cifar_10_at_its_own_size_is_bit_for_bit_what_is_in_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    pixels = images(50, 32, 3)
    records = b"".join(cifar_record(pixel, (i % 10,)) for i, pixel in enumerate(pixels))
    (folder / "data_batch_1.bin").write_bytes(records[: 40 * 3073])
    (folder / "test_batch.bin").write_bytes(records[40 * 3073 :])
    keirin("prepare", "cifar10", "--from", str(folder))
    data = load("cifar10", 32)
    stored = np.concatenate([np.asarray(getattr(data, split).images) for split in SPLITS])
    assert {image.tobytes() for image in stored} == {image.tobytes() for image in pixels}
    assert data.num_classes == 10


def test_one_text_serves_bytes_and_subwords(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wiki"
    folder.mkdir()
    rng = np.random.default_rng(0)
    words = np.array(["keirin", "pacer", "größer", "sprint", "the", "rider", "of"])
    articles = [" ".join(rng.choice(words, 40)) for _ in range(300)]
    pq.write_table(pa.table({"title": ["t"] * 300, "text": articles}), folder / "train-0.parquet")
    code, output = keirin("prepare", "wikipedia_en_32k", "--from", str(folder))
    assert code == 0
    assert "wikipedia_en_bytes, wikipedia_en_32k" in output
    texts = {name: load_text(name, 8) for name in ("wikipedia_en_bytes", "wikipedia_en_32k")}
    reader = WorkspaceReader()
    for split in SPLITS:
        found = {name: decode(name, np.asarray(getattr(text, split)), reader) for name, text in texts.items()}
        assert found["wikipedia_en_bytes"] == found["wikipedia_en_32k"]
        assert "keirin" in found["wikipedia_en_32k"]
    assert len(texts["wikipedia_en_32k"].train) < len(texts["wikipedia_en_bytes"].train) / 3
    code, output = keirin("show", "wikipedia_en_32k")
    assert code == 0
    assert "keirin" in output


@pytest.mark.parametrize("name", ["english_bytes", "english_subwords"])
def test_showing_a_text_prints_a_piece_of_each_split(name: str) -> None:
    code, output = keirin("show", name)
    assert code == 0
    assert all(f"{split}: " in output for split in SPLITS)
    assert "Assert statements are a convenient way" in output


# Refusals


def test_data_that_do_not_fit_the_device_are_refused_before_anything_is_loaded(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "device_memory", lambda: 2**30)
    config = TaskConfig(
        family=MlpConfig(hidden_size=4, num_layers=1, image_size=64, batch_size=8, dataset="imagenet64")
    )
    with pytest.raises(
        DatasetTooLargeError, match=r"'imagenet64' at 64×64 takes 15\.23 GiB .* 0\.50 GiB \(50% of 1\.00 GiB"
    ):
        config.build()
    with pytest.raises(
        DatasetTooLargeError, match=r"'lm1b_bytes' takes 7\.45 GiB .* 0\.50 GiB.*--max-examples"
    ):
        load_text("lm1b_bytes")


def test_what_counts_is_how_much_is_prepared(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keirin("prepare", "mnist", "--from", str(files))
    size = 80 * 28 * 28  # of 70 000 × 28 × 28
    monkeypatch.setattr(placement, "device_memory", lambda: 2 * size)
    assert load("mnist", 28).train.images.shape[0] == 48
    monkeypatch.setattr(placement, "device_memory", lambda: 2 * size - 1)
    with pytest.raises(DatasetTooLargeError, match=r"0\.1 MiB"):
        load("mnist", 29)
    monkeypatch.setattr(image_sets, "check_fits_device", lambda *arguments: None)
    assert load("mnist", 29).train.images.shape[1] == 29


def test_absent_data_are_one_line_with_the_command() -> None:
    result = in_a_process("show", "cifar100")
    assert result.returncode == 1
    assert result.stderr.strip().count("\n") == 0
    assert "keirin data prepare cifar100" in result.stderr
    assert "unexpected" not in result.stderr


def test_an_unknown_name_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("prepare", "show"):
        code, line = refused(capsys, command, "cifr10")
        assert code == 2
        assert "Did you mean 'cifar10'?" in line


def test_a_folder_without_the_files_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = refused(capsys, "prepare", "mnist", "--from", str(tmp_path))
    assert code == 1
    assert "none of the known formats" in line
    assert "must be a folder" in refused(capsys, "prepare", "mnist", "--from", str(tmp_path / "gone"))[1]


def test_embedded_sets_need_no_preparing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing to prepare" in refused(capsys, "prepare", "digits")[1]


def test_sizes_are_for_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "prepare", "lm1b_bytes", "--from", str(tmp_path), "--size", "8")[1]
    assert "`--size` is for images" in line
    assert "`--size` and `--out` are for images" in refused(capsys, "show", "english_bytes", "--size", "8")[1]


def test_a_damaged_set_is_said_to_be_in_the_list(home: Path, files: Path) -> None:
    keirin("prepare", "mnist", "--from", str(files))
    (home / "datasets" / "mnist" / "native" / "manifest.json").write_text("{}")
    row = next(row for row in rows(Workspace()) if row["name"] == "mnist")
    assert row["where"].startswith("damaged")


def test_nothing_is_downloaded_where_files_are_given(
    home: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*arguments: object) -> None:
        raise AssertionError("asked for a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    made = prepare(
        Workspace(), "mnist", folder=files, sizes=[], max_examples=None, on_progress=lambda doing, count: None
    )
    assert made == ["native"]
    assert DATASETS["mnist"].load(28)["test"][0].shape == (20, 28, 28, 1)
