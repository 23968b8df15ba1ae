"""Changing a phase while it runs: the record, the command, what the run makes of it and leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

import flows.training.prefect_watch
import flows.training.runner
from curriculum.control import Control
from curriculum.phase import Phase
from flows.training.control_records import ControlFile, change_control, running
from lopt.registry import UnknownNameError
from storage.mlflow_client import query
from storage.workspace import Workspace

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


@pytest.fixture
def file(workspace: Workspace, tiny_curriculum: tuple[Phase, ...]) -> ControlFile:
    file = ControlFile(workspace, "first-0a1b")
    file.open(tiny_curriculum[0])
    return file


def test_wishes_add_up_and_the_command_is_the_last_one(workspace: Workspace, file: ControlFile) -> None:
    assert file.read() == Control()
    assert change_control(workspace, "first", Control(learning_rate=0.1, command="pause"))[0] == "first-0a1b"
    assert file.read() == Control(learning_rate=0.1, command="pause")
    change_control(workspace, "first-0a1b", Control())
    assert file.read() == Control(learning_rate=0.1)
    change_control(workspace, "first", Control(learning_rate=0.2))
    assert file.read().learning_rate == 0.2


def test_a_record_that_cannot_be_read_changes_nothing(workspace: Workspace, file: ControlFile) -> None:
    change_control(workspace, "first", Control(learning_rate=0.1))
    assert file.read().learning_rate == 0.1
    (workspace.root / "control" / "first-0a1b.json").write_text("{")
    assert file.read().learning_rate == 0.1
    file.close()
    assert file.read() == Control()
    assert running(workspace) == []


def test_a_run_that_is_not_there_is_refused(
    workspace: Workspace, file: ControlFile, tiny_curriculum: tuple[Phase, ...]
) -> None:
    assert change_control(workspace, "", Control())[0] == "first-0a1b"  # the only one
    with pytest.raises(UnknownNameError, match=r"unknown running phase 'frist'; known: 'first-0a1b'"):
        change_control(workspace, "frist", Control())
    ControlFile(workspace, "first-ffff").open(tiny_curriculum[0])
    with pytest.raises(UnknownNameError, match="could be any of first-0a1b, first-ffff"):
        change_control(workspace, "first", Control())
    for run in running(workspace):
        ControlFile(workspace, run).close()
    with pytest.raises(UnknownNameError, match="no phase is running here"):
        change_control(workspace, "", Control())


def test_the_command_checks_the_wish_before_it_is_written(
    keirin: Callable[..., Any], workspace: Workspace, file: ControlFile
) -> None:
    answer = keirin("control", "first", "--batch-size", 3)
    assert answer.code != 0
    assert "is synchronous: it has no `batch_size` to change" in answer.error
    assert file.read() == Control()
    assert "'run', 'pause' or 'stop', got 'halt'" in keirin("control", "first", "--command", "halt").error
    answer = keirin("control", "first", "--learning-rate", 0.001, "--command", "pause")
    assert answer.out.strip() == "first-0a1b: pause, learning_rate 0.001; from the next outer step on"


def wish_at(monkeypatch: pytest.MonkeyPatch, workspace: Workspace, wishes: dict[int, Control]) -> None:
    """Makes a person wish something when the run looks for the n-th time."""
    read, count = ControlFile.read, iter(range(1, 1_000))

    def reading(file: ControlFile) -> Control:
        wish = wishes.get(next(count))
        if wish is not None:
            change_control(workspace, "first", wish)
        return read(file)

    monkeypatch.setattr(ControlFile, "read", reading)
    monkeypatch.setattr(flows.training.runner, "PAUSE_SECONDS", 0.0)


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_run_takes_it_up_records_it_and_stops_when_told(
    mode: str,
    keirin: Callable[..., Any],
    tiny: tuple[Phase, ...],
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tenth of the rate, a pause, and a stop; the same command then goes on to the end."""
    later = 3 if mode == "synchronous" else 6
    wishes = {
        2: Control(learning_rate=1e-3),
        later: Control(command="pause"),
        later + 1: Control(command="run"),
        later + 2: Control(command="stop"),
    }
    with monkeypatch.context() as patch:
        wish_at(patch, workspace, wishes)
        answer = keirin("train", "--phase", "first", "--mode", mode, "--outer-steps", 12)
    assert answer.code != 0
    assert "was told to stop at outer step" in answer.error
    assert "The same command continues" in answer.error
    assert "changed by hand: learning_rate 0.001" in answer.out
    database = workspace.mlflow_database
    rates = query(database, "SELECT value FROM metrics WHERE key = 'control_learning_rate'")
    assert rates == [(0.001,)]
    assert query(database, "SELECT value FROM tags WHERE key LIKE 'keirin.event.%'") == [
        ("changed by hand: learning_rate 0.001",)
    ]
    assert running(workspace) == []
    again = keirin("train", "--phase", "first", "--mode", mode, "--outer-steps", 12)
    assert again.code == 0
    assert "continues from outer step" in again.out


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_pause_resume_and_cancel_on_prefects_pages_do_the_same(
    mode: str, keirin: Callable[..., Any], tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the pages' buttons ask of the server, between outer steps; each is obeyed before the next one."""
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext
    from prefect.states import Cancelling, Paused

    seen: list[tuple[str, int]] = []
    run_ids: list[Any] = []

    def press(watch: Any, step: int) -> None:
        """Pauses after the first step, goes on when that has been seen twice, cancels after the second."""
        (run_id,) = watch._flow_runs
        kinds = [kind for kind, _ in seen]
        with get_client(sync_client=True) as client:
            if step == 1 and kinds.count("Paused") == 0:
                run_ids.append(run_id)
                client.set_flow_run_state(run_id, Paused(timeout_seconds=600))
                wait_for(watch, "pause")
            elif step == 1 and kinds.count("Paused") == 2:
                client.resume_flow_run(run_id)
                wait_for(watch, "run")
            elif step == 2:
                client.set_flow_run_state(run_id, Cancelling())
                wait_for(watch, "stop")

    def wait_for(watch: Any, command: str) -> None:
        deadline = time.monotonic() + 30
        while watch.command != command and time.monotonic() < deadline:
            time.sleep(0.01)
        assert watch.command == command

    watches: list[Any] = []
    open_watch, take = (
        flows.training.prefect_watch.PrefectWatch.__init__,
        flows.training.runner.PhaseTelemetry.take,
    )

    def opened(watch: Any, *arguments: Any) -> None:
        watches.append(watch)
        open_watch(watch, *arguments)

    def taken(telemetry: Any, event: Any) -> None:
        take(telemetry, event)
        seen.append((type(event).__name__, event.outer_step))
        assert FlowRunContext.get() is not None
        if type(event).__name__ in ("OuterStepDone", "Paused"):
            press(watches[0], event.outer_step)

    monkeypatch.setattr(flows.training.prefect_watch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(flows.training.runner, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(flows.training.prefect_watch.PrefectWatch, "__init__", opened)
    monkeypatch.setattr(flows.training.runner.PhaseTelemetry, "take", taken)
    answer = keirin("train", "--phase", "first", "--mode", mode, "--outer-steps", 12)
    assert answer.code != 0
    assert "was told to stop at outer step 2 of 12; its checkpoint is stored" in answer.error
    steps = [step for kind, step in seen if kind == "OuterStepDone"]
    assert steps == [1, 2]
    assert ("Paused", 1) in seen
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_ids[0]).state
    assert state is not None
    assert state.is_cancelled()


def test_a_server_that_is_gone_ends_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        asked = 0

        def read_flow_run(self, _: object) -> Any:
            self.asked += 1
            raise ConnectionError("gone")

    monkeypatch.setattr(flows.training.prefect_watch, "POLL_SECONDS", 0.001)
    gone: Any = Gone()
    watch = flows.training.prefect_watch.PrefectWatch(gone, [uuid4()])
    watch.command = "pause"
    time.sleep(0.05)
    assert watch.command == "pause"  # for a while it may be back
    monkeypatch.setattr(flows.training.prefect_watch, "LOST_SECONDS", 0.0)
    deadline = time.monotonic() + 10
    while watch.command == "pause" and time.monotonic() < deadline:
        time.sleep(0.001)
    watch.close()
    assert watch.command == "run"
