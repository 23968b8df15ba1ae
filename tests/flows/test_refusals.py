"""What keirin refuses, on the real commands: one clear line, an exit code, and nothing stored damaged.

The commands run in this process (see `conftest.keirin`); `tests/integration/test_resume.py` kills real ones.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curriculum.phase import Phase
from flows.optimizer_reference import initial_theta
from flows.parameters import TrainParameters
from lopt.architectures import ARCHITECTURES
from lopt.config import derive
from runtime_model.rejection import ProblemSizeThresholds
from storage.bundles import DamagedBundleError
from storage.checkpoint_reading import verify
from storage.checkpoints import CheckpointStore
from storage.model_registry import ModelRegistry
from storage.tracking import MlflowTracker
from storage.workspace import Workspace

Keirin = Callable[..., Any]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


def flip(folder: Path) -> str:
    file = _largest(folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return str(file.relative_to(folder))


def truncate(folder: Path) -> str:
    file = _largest(folder)
    file.write_bytes(file.read_bytes()[:-3])
    return str(file.relative_to(folder))


def lose(folder: Path) -> str:
    file = _largest(folder)
    file.unlink()
    return str(file.relative_to(folder))


def _largest(folder: Path) -> Path:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "manifest.json")
    return max(files, key=lambda file: (file.stat().st_size, file))


DAMAGES = pytest.mark.parametrize("damage", [flip, truncate, lose])


@pytest.fixture
def champions(workspace: Workspace) -> Workspace:
    """Two registered optimizers: version 2 is champion and candidate, version 1 was champion before."""
    optimizer = ARCHITECTURES["pacer"]()
    registry, store = ModelRegistry(workspace), CheckpointStore(workspace.checkpoints)
    run = MlflowTracker(workspace).start_run("first")
    for step in (1, 2):
        theta = initial_theta(optimizer.canonical_json(), seed=0)
        metadata = {"architecture": optimizer.model_dump(mode="json"), "seed": 0}
        info = store.save("first", step, {"theta": theta, "step": {"n": step * _ones()}}, metadata)
        version = registry.register("keirin", info, run.run_id)
        registry.promote("keirin", version)
    registry.set_alias("keirin", "candidate", 2)
    return workspace


def _ones() -> Any:
    import numpy as np

    return np.ones(3)


# --- Names that do not exist ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("sample", "--distribution", "dmo"), "Did you mean 'demo'?"),
        (("train", "--curriculum", "demmo"), "Did you mean 'demo'?"),
        (("train", "--phase", "shrt_horizon"), "Did you mean 'short_horizon'?"),
        (("evaluate", "--evaluation-set", "heldout"), "Did you mean 'heldout_demo'?"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(
    keirin: Keirin, pool: Any, arguments: tuple[str, ...], hint: str
) -> None:
    answer = keirin(*arguments)
    assert answer.code == 2
    assert answer.error.endswith(hint)
    assert arguments[2] in answer.error
    assert pool.num_units == 0


@pytest.mark.parametrize("command", ["evaluate", "promote"])
def test_an_unknown_alias_is_refused_with_the_nearest(
    keirin: Keirin, champions: Workspace, command: str
) -> None:
    answer = keirin(command, "champoin")
    assert answer.code == 2
    assert answer.error.startswith("unknown alias 'champoin'")
    assert answer.error.endswith("Did you mean 'champion'?")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("models:/keirin/9", "has no version 9; known: 1, 2"),
        ("models:/keirn@champion", "Did you mean 'keirin'?"),
        ("models:/keirin", "is not a model"),
        ("/nowhere/step-0000000001", "there is no checkpoint at `/nowhere/step-0000000001`"),
    ],
)
def test_other_references_that_point_at_nothing(
    keirin: Keirin, champions: Workspace, reference: str, words: str
) -> None:
    answer = keirin("evaluate", reference)
    assert answer.code != 0
    assert words in answer.error


# --- Requests that are impossible, or too early --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--outer-steps", 0), "--outer-steps: Input should be greater than or equal to 1, got 0"),
        (("time", "--max-seconds-per-step", -1), "--max-seconds-per-step: "),
        (("run", "--horizon", 1), "--horizon: "),
        (("demo", "--seed", -1), "--seed: "),
        (("train", "--workers", 0), "--workers: "),
        (("train", "--memory-limit", "much"), "--memory-limit: "),
        (("train", "--scheduler", "127.0.0.1:1"), "Try 'tcp://127.0.0.1:1'"),
        (("train", "--scheduler", "tcp://127.0.0.1:99999"), "is no address"),
    ],
)
def test_impossible_values_are_refused_before_anything_starts(
    keirin: Keirin, pool: Any, arguments: tuple[object, ...], words: str
) -> None:
    answer = keirin(*arguments)
    assert answer.code != 0
    assert words in answer.error
    assert pool.num_units == 0


def test_a_phase_that_no_task_fits_names_the_budget(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from curriculum.phases import CURRICULA

    thresholds = ProblemSizeThresholds(seconds=(1e-9,), probabilities=(1.0,))
    monkeypatch.setitem(CURRICULA, "demo", (derive(tiny[0], problem_size=thresholds),))
    answer = keirin("train")
    assert answer.code != 0
    assert "must be reachable, got 1e-09 s per step: accepted 0 of 4096" in answer.error
    assert "Fastest valid seen, at that probability: 2e-05 s" in answer.error
    assert CheckpointStore(workspace.checkpoints).list() == []


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (("fit",), "Run `keirin time` first."),
        (("promote",), "Run `keirin evaluate candidate`."),
        (("promote", "champion"), "Run `keirin evaluate champion`."),
    ],
)
def test_a_step_before_its_time_names_the_step_to_run(
    keirin: Keirin, champions: Workspace, command: tuple[object, ...], remedy: str
) -> None:
    before = ModelRegistry(champions).aliases()
    answer = keirin(*command)
    assert answer.code == 1
    assert remedy in answer.error
    assert ModelRegistry(champions).aliases() == before


def test_a_phase_before_the_one_it_starts_from(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...]
) -> None:
    answer = keirin("train", "--phase", "second")
    assert answer.code == 1
    assert "Run `keirin train --phase first` first." in answer.error


# --- Schedulers, ports ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://no-such-host.invalid:8786"])
def test_an_unreachable_scheduler_is_one_line_in_seconds(
    keirin: Keirin, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("KEIRIN_CONNECT_TIMEOUT", "1.5")
    start = time.monotonic()
    answer = keirin("train", "--scheduler", address)
    assert time.monotonic() - start < 8
    assert answer.code == 1
    assert answer.error.startswith(f"no Dask scheduler answers at {address} within 1.5 s. Start one")


def test_a_port_that_is_taken_names_the_option(keirin: Keirin, workspace: Workspace) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for service in ("prefect", "mlflow", "dask"):
            answer = keirin("up", f"--{service}-port", port)
            assert answer.code == 2
            assert f"port {port}, which " in answer.error
            assert f"`keirin up --{service}-port {port + 1}`" in answer.error
    assert not (workspace.root / "services.json").exists()


# --- Disks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "time", "report", "promote", "up"])
def test_a_home_that_cannot_be_written(keirin: Keirin, tmp_path: Path, command: str) -> None:
    """Tests may run as root, who may write anywhere, so a file is where the folder should be."""
    (tmp_path / "home").write_text("precious")
    answer = keirin(command)
    assert answer.code == 1
    assert answer.error.startswith(f"the workspace `{tmp_path / 'home'}` is a file")
    assert (tmp_path / "home").read_text() == "precious"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_home(
    keirin: Keirin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    answer = keirin("train")
    assert answer.code == 1
    assert answer.error.startswith(f"cannot prepare the workspace: `{tmp_path / 'home'}` is not accessible")


@pytest.mark.slow
def test_a_disk_that_fills_up_in_mid_phase(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third checkpoint on nothing can be written; with space again, the end is the same."""
    reference = workspace.root.with_name("reference")
    shutil.copytree(workspace.root, reference)
    assert keirin("train", "--home", reference).code == 0
    synchronize, store = os.fsync, CheckpointStore(workspace.checkpoints)

    def fail_when_two_are_stored(descriptor: int) -> None:
        if len(store.list()) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synchronize(descriptor)

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "fsync", fail_when_two_are_stored)
        answer = keirin("train")
    assert answer.code == 1
    assert answer.error.startswith("cannot save checkpoint 'first-")
    assert "no space left on the disk of" in answer.error
    stored = store.list()
    assert [info.outer_step for info in stored] == [0, 1]
    for info in stored:
        verify(info)
    assert not [entry for entry in stored[0].path.parent.iterdir() if entry.name.startswith(".")]
    answer = keirin("train")
    assert answer.code == 0
    assert "continues from outer step 1 of 4" in answer.out
    assert _final(workspace.checkpoints) == _final(reference / "checkpoints")


@pytest.mark.slow
def test_checkpoints_become_read_only_in_an_asynchronous_phase(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third checkpoint on none can be written: one error, and what was stored is gone on from."""
    synchronize, store = os.fsync, CheckpointStore(workspace.checkpoints)

    def refuse_when_two_are_stored(descriptor: int) -> None:
        if len(store.list()) >= 2:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        synchronize(descriptor)

    with monkeypatch.context() as read_only:
        read_only.setattr(os, "fsync", refuse_when_two_are_stored)
        answer = keirin("train", "--mode", "asynchronous")
    assert answer.code == 1
    assert answer.error.startswith("cannot save checkpoint 'first-")
    assert "is not accessible" in answer.error
    stored = store.list()
    assert [info.outer_step for info in stored] == [0, 1]
    for info in stored:
        verify(info)
    answer = keirin("train", "--mode", "asynchronous")
    assert answer.code == 0
    assert "continues from outer step 1 of 4" in answer.out
    (phase,) = store.phases()
    latest = store.latest(phase)
    assert latest is not None
    assert latest.outer_step == 4


@pytest.mark.slow
def test_a_full_disk_that_only_the_tracking_database_notices(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    def full(*_: object, **__: object) -> None:
        raise mlflow.exceptions.MlflowException("(sqlite3.OperationalError) database or disk is full")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(mlflow.tracking.MlflowClient, "log_batch", full)
        answer = keirin("train")
    assert answer.code == 1
    assert answer.error.startswith("cannot record params: no space left on the disk of")
    assert keirin("train").code == 0


def _final(checkpoints: Path) -> str:
    store = CheckpointStore(checkpoints)
    (phase,) = store.phases()
    latest = store.latest(phase)
    assert latest is not None
    assert latest.outer_step == 4
    return store.load(latest).digest


# --- Damaged checkpoints -------------------------------------------------------------------------------------


@DAMAGES
@pytest.mark.parametrize("command", ["evaluate", "promote"])
def test_a_damaged_champion_is_refused_by_name_and_the_previous_one_offered(
    keirin: Keirin, champions: Workspace, pool: Any, command: str, damage: Callable[[Path], str]
) -> None:
    file = damage(ModelRegistry(champions).resolve("champion"))
    answer = keirin(command, "champion")
    assert answer.code == 1
    assert answer.error.startswith("'champion': checkpoint 'first' step 2 is damaged: ")
    assert f"`{file}`" in answer.error
    assert answer.error.endswith(
        "The alias 'previous-champion' is good: use 'models:/keirin@previous-champion'."
    )
    assert pool.num_units == 0


@DAMAGES
def test_a_damaged_folder_is_refused_and_the_previous_step_offered(
    keirin: Keirin, champions: Workspace, damage: Callable[[Path], str]
) -> None:
    store = CheckpointStore(champions.checkpoints)
    damage(store.info("first", 2).path)
    answer = keirin("evaluate", store.info("first", 2).path)
    assert answer.code == 1
    assert f"The last good one is step 1: use `{store.info('first', 1).path}`" in answer.error


@DAMAGES
def test_a_stopped_phase_passes_over_a_damaged_checkpoint(
    keirin: Keirin,
    workspace: Workspace,
    tiny: tuple[Phase, ...],
    damage: Callable[[Path], str],
) -> None:
    assert keirin("train", "--phase", "first").code == 0
    store = CheckpointStore(workspace.checkpoints)
    expected = _final(workspace.checkpoints)
    (phase,) = store.phases()
    for file in (workspace.root / "artifacts").glob("phase-*.json"):
        if not file.name.startswith("phase-tasks"):
            file.unlink()  # as if it had been killed before it was complete
    damage(store.info(phase, 4).path)
    answer = keirin("train", "--phase", "first")
    assert answer.code == 0
    assert f"checkpoint {phase!r} step 4 is damaged" in " ".join(answer.out.split())
    assert "continues from outer step 3 of 4" in answer.out
    assert _final(workspace.checkpoints) == expected


def test_a_damaged_promoted_checkpoint_is_refused_and_made_again(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...]
) -> None:
    assert keirin("train", "--phase", "first").code == 0
    registry = ModelRegistry(workspace)
    flip(registry.resolve("first"))
    with pytest.raises(DamagedBundleError):
        verify_alias(registry, "first")
    answer = keirin("train", "--phase", "second")
    assert answer.code == 1
    assert answer.error.startswith("phase 'second' cannot start: checkpoint 'first-")
    assert "run `keirin train --phase first`" in answer.error
    assert "is damaged: it is made again" in keirin("train", "--phase", "first").out
    verify_alias(registry, "first")
    assert keirin("train", "--phase", "second").code == 0


def verify_alias(registry: ModelRegistry, alias: str) -> None:
    from storage.checkpoint_reading import locate

    verify(locate(registry.resolve(alias)))


def test_an_unknown_phase_is_known_by_the_form_too() -> None:
    with pytest.raises(ValueError, match="Did you mean 'long_horizon'"):
        TrainParameters(phase="long_horizn")
