"""Promote, roll back, history: on registered optimizers with made-up evaluations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from curriculum.evaluation.summary import EvaluationSummary
from curriculum.gates import GATES
from curriculum.phase import Phase
from curriculum.phases import CURRICULA
from flows.artifacts import ArtifactSpec
from flows.evaluation.records import EvaluationRecord, find_evaluation, record_evaluation
from flows.optimizer_reference import initial_theta, resolve_optimizer
from flows.parameters import PromoteParameters, RollbackParameters, TrainParameters
from flows.progress import Reporter
from flows.promote import run_promotion
from flows.promotion.decision import consider
from flows.promotion.gate_files import read_gate
from flows.promotion.history import PromotionEvent, read_history
from flows.record import recall
from flows.rollback import run_rollback
from flows.session import Session
from flows.settings import RuntimeSettings
from flows.training.plan import plan_phase
from lopt.architectures import ARCHITECTURES
from lopt.config import derive
from storage.checkpoints import CheckpointStore
from storage.errors import AliasMovedError
from storage.mlflow_client import tracking_client
from storage.model_registry import ModelRegistry
from storage.promotion_log import PromotionLog
from storage.tracking import MlflowTracker
from storage.workspace import Workspace
from tests.support.made_up_evaluations import made_up_evaluation

Keirin = Callable[..., Any]
ROOT = Path(__file__).parents[2]
MODEL = "keirin"
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


def steady(speed: float) -> EvaluationSummary:
    return made_up_evaluation([[speed, speed]] * 4, num_held_out=2)


def open_session(workspace: Workspace) -> Session:
    return Session(RuntimeSettings(home=workspace.root), Reporter(Console(quiet=True)))


def record(
    session: Session, ref: str, summary: EvaluationSummary, *, tasks: str = "tasks"
) -> EvaluationRecord:
    fingerprint = resolve_optimizer(ref, session).fingerprint
    spec = ArtifactSpec("evaluation", 1, {"tasks": tasks}, (fingerprint,))
    return record_evaluation(session.workspace, fingerprint, spec, summary.model_dump(mode="json"))


@pytest.fixture
def session(workspace: Workspace) -> Session:
    """Versions 1 to 3, with speed-ups of 1, 2 and 1.5 on the same tasks. Nobody is champion."""
    optimizer = ARCHITECTURES["pacer"]()
    registry, store = ModelRegistry(workspace), CheckpointStore(workspace.checkpoints)
    run = MlflowTracker(workspace).start_run("first")
    theta = initial_theta(optimizer.canonical_json(), seed=0)
    for step in (1, 2, 3):
        moved = jax.tree.map(lambda leaf, step=step: leaf + 0.01 * step, theta)
        metadata = {"architecture": optimizer.model_dump(mode="json"), "seed": 0}
        registry.register(MODEL, store.save("first", step, {"theta": moved}, metadata), run.run_id)
    opened = open_session(workspace)
    for version, speed in ((1, 1.0), (2, 2.0), (3, 1.5)):
        record(opened, uri(version), steady(speed))
    return opened


def uri(version: int) -> str:
    return f"models:/{MODEL}/{version}"


def promote(session: Session, version: int, gate: str = "default") -> bool:
    return run_promotion(PromoteParameters(optimizer=uri(version), gate=gate), session).promoted


def champion(session: Session) -> int | None:
    return session.registry.aliases(MODEL).get("champion")


def events(session: Session) -> list[PromotionEvent]:
    return [numbered.event for numbered in read_history(session.workspace)]


def moves(session: Session) -> list[tuple[str, int | None, int | None, int | None]]:
    return [(e.kind, e.version, e.from_version, e.to_version) for e in events(session)]


def test_the_record_has_every_decision_with_what_it_rests_on(session: Session) -> None:
    assert [promote(session, version) for version in (1, 3, 2, 3)] == [True, True, True, False]
    assert moves(session) == [
        ("promoted", 1, None, 1),
        ("promoted", 3, 1, 3),
        ("promoted", 2, 3, 2),
        ("refused", 3, 2, 2),
    ]
    refused = events(session)[-1]
    reason = refused.checks[-1].reason
    assert "speed-up 1.50 against the champion's 2.00" in reason
    assert "n = 4 tasks × 2 seeds" in reason
    evaluations = [
        find_evaluation(session.workspace, resolve_optimizer(uri(v), session).fingerprint) for v in (3, 2)
    ]
    assert [refused.evaluation, refused.champion_evaluation] == [e.fingerprint for e in evaluations if e]
    assert refused.gate_fingerprint == GATES["default"].fingerprint()


def test_the_evidence_is_in_mlflow_and_linked_both_ways(session: Session) -> None:
    promote(session, 1)
    promote(session, 2)
    event = events(session)[-1]
    client = tracking_client(session.workspace)
    tags = client.get_model_version(MODEL, "2").tags
    assert (tags["keirin.decision"], tags["keirin.evaluation"]) == (event.run_id, event.evaluation)
    run = client.get_run(event.run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.tags["keirin.version"], run.data.tags["keirin.champion"]) == ("2", "1 -> 2")
    assert run.data.params["gate"] == "default"
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    stored = json.loads((folder / "candidate_evaluation.json").read_text())
    assert EvaluationSummary.model_validate(stored["summary"]) == steady(2.0)
    assert (
        json.loads((folder / "champion_evaluation.json").read_text())["fingerprint"]
        == event.champion_evaluation
    )
    assert PromotionEvent.model_validate_json((folder / "decision.json").read_text()) == event


def test_asking_again_changes_and_records_nothing(session: Session) -> None:
    for version in (2, 3):
        first = run_promotion(PromoteParameters(optimizer=uri(version)), session)
        again = run_promotion(PromoteParameters(optimizer=uri(version)), session)
        assert again == first
    assert moves(session) == [("promoted", 2, None, 2), ("refused", 3, 2, 2)]
    record(session, uri(3), steady(3.0), tasks="harder")  # a new evaluation is a new question
    assert not promote(session, 3)
    assert "run `keirin evaluate champion` with the candidate's --set" in events(session)[-1].checks[0].reason
    record(session, "champion", steady(2.0), tasks="harder")
    assert promote(session, 3)


def test_the_champion_is_compared_by_its_evaluation_on_the_same_tasks(session: Session) -> None:
    """Its latest one is on easier tasks, where it was faster."""
    promote(session, 1)
    record(session, uri(1), steady(9.0), tasks="easier")
    assert promote(session, 2)
    assert "champion's 1.00" in events(session)[-1].checks[-1].reason


def test_the_gate_that_was_asked_for_decides(session: Session, tmp_path: Path) -> None:
    assert not promote(session, 2, gate="strict")
    own = tmp_path / "own.json"
    own.write_text('{"name": "own", "conditions": [{"condition": "enough_evidence", "min_tasks": 4}]}')
    assert promote(session, 2, gate=str(own))
    assert [event.gate for event in events(session)] == ["strict", "own"]


def test_rollback_goes_back_one_by_one(session: Session) -> None:
    for version in (1, 3, 2):
        promote(session, version)
    event = run_rollback(RollbackParameters(reason="diverges on our models"), session)
    assert (event.from_version, event.to_version, champion(session)) == (2, 3, 3)
    assert run_rollback(RollbackParameters(), session).to_version == 1
    with pytest.raises(LookupError, match="version 1 is the first champion"):
        run_rollback(RollbackParameters(), session)
    assert run_rollback(RollbackParameters(to=2), session).from_version == 1
    with pytest.raises(LookupError, match="champion already"):
        run_rollback(RollbackParameters(to=2), session)
    assert [event.kind for event in events(session)] == ["promoted"] * 3 + ["rolled back"] * 3
    assert events(session)[3].reason == "diverges on our models"
    run = tracking_client(session.workspace).get_run(events(session)[3].run_id)
    assert run.data.tags["keirin.champion"] == "2 -> 3"


def test_who_was_rolled_back_needs_a_new_evaluation(session: Session) -> None:
    promote(session, 1)
    promote(session, 2)
    run_rollback(RollbackParameters(reason="diverges"), session)
    assert not promote(session, 2)
    assert "rolled back (diverges)" in events(session)[-1].checks[0].reason
    assert recall(session.workspace, "promotion")["report"]["promoted"] is False
    for ref in (uri(2), "champion"):
        record(session, ref, steady(2.0 if ref != "champion" else 1.0), tasks="others")
    assert promote(session, 2)
    run_rollback(RollbackParameters(), session)
    run_rollback(RollbackParameters(to=2), session)  # gone back to it: forgiven
    run_rollback(RollbackParameters(to=1), session)
    assert not promote(session, 2)


def test_rollback_to_what_is_damaged_leaves_the_champion(session: Session) -> None:
    for version in (1, 3, 2):
        promote(session, version)
    (session.registry.resolve(uri(3)) / "float32" / "0").write_bytes(b"")
    with pytest.raises(ValueError, match=r"version 3 is damaged.*stays version 2. Undamaged: 1; choose one"):
        run_rollback(RollbackParameters(), session)
    assert champion(session) == 2
    assert len(events(session)) == 3
    assert run_rollback(RollbackParameters(to=1), session).to_version == 1


def test_only_a_former_champion_can_be_gone_back_to(session: Session) -> None:
    with pytest.raises(LookupError, match="no champion"):
        run_rollback(RollbackParameters(), session)
    promote(session, 1)
    promote(session, 3)
    with pytest.raises(
        LookupError, match=r"version 2 was never champion; those that were: 1\..*keirin promote"
    ):
        run_rollback(RollbackParameters(to=2), session)


def test_a_champion_from_before_the_record_has_the_alias_to_go_back_to(session: Session) -> None:
    session.registry.promote(MODEL, 1)
    session.registry.promote(MODEL, 3)
    assert run_rollback(RollbackParameters(), session).to_version == 1


def test_a_phase_can_start_from_the_champion(
    session: Session, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CURRICULA, "demo", (derive(tiny[0], name="next_one", start_from="champion"),))
    for version in (1, 2):
        promote(session, version)
        plan = plan_phase(TrainParameters(), session)
        assert plan.started_from == f"champion (version {version})"
        jax.tree.map(
            np.testing.assert_array_equal, plan.theta, resolve_optimizer(uri(version), session).theta
        )
    run_rollback(RollbackParameters(), session)
    assert plan_phase(TrainParameters(), session).started_from == "champion (version 1)"


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


# --- The commands ---------------------------------------------------------------------------------------------


def test_the_commands_tell_the_story(keirin: Keirin, session: Session) -> None:
    assert keirin("history").out.startswith("nothing has been promoted here")
    assert keirin("promote", uri(1)).code == 0
    answer = keirin("promote", uri(2), "--gate", "default")
    assert "version 2: promoted to 'champion' (gate 'default')" in answer.out
    answer = keirin("rollback", "--reason", "too bold")
    assert answer.code == 0
    assert "champion: version 2 → 1: too bold" in answer.out
    table = keirin("history").out
    for words in (
        "promoted 1",
        "none → 1",
        "1 → 2",
        "rolled back 1",
        "2 → 1",
        "too bold",
        "n = 2 tasks × 2 seeds",
    ):
        assert words in table
    listed = json.loads(keirin("history", "--json").out)
    assert [entry["number"] for entry in listed] == [1, 2, 3]
    assert listed[1]["checks"][0]["passed"] is True
    assert "last decision of 3: rolled back to version 1" in keirin("status").out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("promote", "--gate", "strickt"),
            2,
            "--gate: unknown gate 'strickt'; known: 'default', 'strict'. Did you",
        ),
        (("promote", "--gate", "nothing.json"), 2, "cannot be read: No such file"),
        (("promote", "--gate", "https://x/y.json"), 2, "must be a local path"),
        (("rollback", "--to", "0"), 2, "--to: "),
        (("rollback",), 1, "there is no champion to roll back from"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    keirin: Keirin, workspace: Workspace, arguments: tuple[str, ...], code: int, said: str
) -> None:
    answer = keirin(*arguments)
    assert answer.code == code
    assert said in answer.error
    assert PromotionLog(workspace).entries() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "is not a gate: the document"),
        ('{"name": "x", "conditions": [{"condition": "champion_ratio"}]}', "min_ratio: Field required"),
        ("{}" + " " * 100_001, "larger than 100,000 bytes"),
    ],
)
def test_a_file_that_is_no_gate_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "gate.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_gate(str(path))


def test_a_checkpoint_without_a_version_is_registered_when_it_is_promoted(session: Session) -> None:
    candidate = resolve_optimizer(str(session.checkpoints.info("first", 2).path), session)
    assert candidate.version is None
    evaluation = find_evaluation(session.workspace, candidate.fingerprint)
    assert evaluation is not None
    refused = consider(candidate, evaluation, GATES["strict"], session, register=lambda: 2)
    assert (refused.kind, refused.version, events(session)) == ("refused", None, [])
    promoted = consider(candidate, evaluation, GATES["default"], session, register=lambda: 2)
    assert (promoted.version, champion(session)) == (2, 2)


def test_of_two_evaluations_the_one_that_was_asked_for_counts(session: Session) -> None:
    fingerprint = resolve_optimizer(uri(1), session).fingerprint
    spec = ArtifactSpec("evaluation", 1, {"tasks": "followed"}, (fingerprint,))
    summary: Mapping[str, Any] = steady(7.0).model_dump(mode="json")
    passing = record_evaluation(session.workspace, fingerprint, spec, dict(summary), asked_for=False)
    latest = find_evaluation(session.workspace, fingerprint)
    assert latest is not None
    assert latest.summary == steady(1.0)
    assert find_evaluation(session.workspace, fingerprint, settings=passing.settings) == passing
