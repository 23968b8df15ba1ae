"""What comes in between a promotion: an alias that is moved, another promotion, the end of its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from promotions import MODEL, champion, events, moves, promote, three_versions

from flows.promotion.history import read_history
from flows.session import Session
from storage.errors import AliasMovedError
from storage.mlflow_client import tracking_client
from storage.model_registry import ModelRegistry
from storage.promotion_log import PromotionLog
from storage.workspace import Workspace

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


@pytest.fixture
def session(workspace: Workspace) -> Session:
    return three_versions(workspace)


def test_a_champion_that_was_moved_meanwhile_is_not_overwritten(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's pages know nothing of the lock: version 3 becomes champion while version 2 is decided on."""
    promote(session, 1)
    import flows.promotion.decision

    decide = flows.promotion.decision.decide

    def slow(*arguments: Any) -> Any:
        session.registry.set_alias(MODEL, "champion", 3)
        return decide(*arguments)

    monkeypatch.setattr(flows.promotion.decision, "decide", slow)
    with pytest.raises(AliasMovedError, match="Decide again"):
        promote(session, 2)
    assert champion(session) == 3
    assert len(events(session)) == 1
    assert PromotionLog(session.workspace).pending() is None


def test_a_champion_that_appeared_meanwhile_is_not_overwritten(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none when version 2 is decided on; the alias is set just before it would be moved."""
    move = ModelRegistry.promote

    def late(self: ModelRegistry, *arguments: Any, **options: Any) -> Any:
        session.registry.set_alias(MODEL, "champion", 3)
        return move(self, *arguments, **options)

    monkeypatch.setattr(ModelRegistry, "promote", late)
    with pytest.raises(AliasMovedError, match=r"was nobody.*is version 3 now"):
        promote(session, 2)
    assert champion(session) == 3
    assert events(session) == []
    assert PromotionLog(session.workspace).pending() is None


CHILD = """
import os, pathlib, signal, sys, time
home, version, mode = sys.argv[1:]
from rich.console import Console
import flows.promotion.decision as decision
from flows.evaluation.records import find_evaluation
from flows.promotion.gate_files import read_gate
from flows.optimizer_reference import resolve_optimizer
from flows.progress import Reporter
from flows.session import Session
from flows.settings import RuntimeSettings
from storage.model_registry import ModelRegistry

session = Session(RuntimeSettings(home=pathlib.Path(home)), Reporter(Console(quiet=True)))
candidate = resolve_optimizer(f"models:/keirin/{version}", session)
evaluation = find_evaluation(session.workspace, candidate.fingerprint)
decide, promote = decision.decide, ModelRegistry.promote
if mode == "race":
    def slow(*arguments):
        time.sleep(1.0)  # whoever is let in meanwhile still sees the old champion
        return decide(*arguments)
    decision.decide = slow
    pathlib.Path(home, f"ready-{version}").touch()
    while len(list(pathlib.Path(home).glob("ready-*"))) < 2:
        time.sleep(0.01)
else:
    def killed(self, *arguments, **options):
        if mode == "after":
            promote(self, *arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    ModelRegistry.promote = killed
print(decision.consider(candidate, evaluation, read_gate("default"), session).kind)
"""


def child(session: Session, version: int, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(session.workspace.root), str(version), mode]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
def test_two_promotions_at_the_same_moment_lose_neither(session: Session) -> None:
    """Version 2 is the faster: whoever comes first, it is champion in the end, and both are in the record."""
    children = {version: child(session, version, "race") for version in (2, 3)}
    said = {}
    for version, process in children.items():
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said[version] = out.split()[-1]
    first, second = events(session)
    assert {first.version, second.version} == {2, 3}
    assert first.from_version is None
    assert second.from_version == first.to_version == first.version  # decided against the first one's result
    assert champion(session) == 2
    assert said == {2: "promoted", 3: "promoted" if first.version == 3 else "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_promotion_that_is_killed_is_finished_by_the_next(session: Session, mode: str) -> None:
    promote(session, 1)
    process = child(session, 3, mode)
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, err
    assert champion(session) == (3 if mode == "after" else 1)
    listed = read_history(session.workspace)
    assert [numbered.number for numbered in listed] == [1, None]
    assert promote(session, 2)
    assert moves(session) == [("promoted", 1, None, 1), ("promoted", 3, 1, 3), ("promoted", 2, 3, 2)]
    statuses = [tracking_client(session.workspace).get_run(e.run_id).info.status for e in events(session)]
    assert statuses == ["FINISHED"] * 3
