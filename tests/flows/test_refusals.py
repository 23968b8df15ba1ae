"""What keirin refuses, on the real commands: one clear line, an exit code, and nothing started.

The commands run in this process (see `conftest.keirin`); `test_refusals_disks.py`: what disks do.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from curriculum.phase import Phase
from flows.parameters import TrainParameters
from lopt.config import derive
from runtime_model.rejection import ProblemSizeThresholds
from storage.checkpoints import CheckpointStore
from storage.model_registry import ModelRegistry
from storage.workspace import Workspace

Keirin = Callable[..., Any]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


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


def test_an_unknown_phase_is_known_by_the_form_too() -> None:
    with pytest.raises(ValueError, match="Did you mean 'long_horizon'"):
        TrainParameters(phase="long_horizn")


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
