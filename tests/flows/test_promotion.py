"""Promotion: what is decided on which evaluation, what is recorded of it, and what the commands say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from promotions import MODEL, champion, events, moves, promote, record, steady, three_versions, uri

from curriculum.evaluation.summary import EvaluationSummary
from curriculum.gates import GATES
from flows.artifacts import ArtifactSpec
from flows.evaluation.records import find_evaluation, record_evaluation
from flows.optimizer_reference import resolve_optimizer
from flows.parameters import PromoteParameters
from flows.promote import run_promotion
from flows.promotion.decision import consider
from flows.promotion.gate_files import read_gate
from flows.promotion.history import PromotionEvent
from flows.session import Session
from storage.mlflow_client import tracking_client
from storage.promotion_log import PromotionLog
from storage.workspace import Workspace

Keirin = Callable[..., Any]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


@pytest.fixture
def session(workspace: Workspace) -> Session:
    return three_versions(workspace)


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
