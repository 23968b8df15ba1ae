"""Artifacts: a fingerprint of all that decides a result, complete once written; and the record of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.artifacts import ArtifactSpec, ArtifactStore
from flows.record import recall, remember, remember_phase, stage
from storage.errors import StorageError
from storage.workspace import Workspace

SPEC = ArtifactSpec("fit", 1, {"seed": 0, "lr": 0.1}, ("abc",))


@pytest.mark.parametrize(
    "other",
    [
        ArtifactSpec("time", 1, {"seed": 0, "lr": 0.1}, ("abc",)),
        ArtifactSpec("fit", 2, {"seed": 0, "lr": 0.1}, ("abc",)),
        ArtifactSpec("fit", 1, {"seed": 1, "lr": 0.1}, ("abc",)),
        ArtifactSpec("fit", 1, {"seed": 0, "lr": 0.1}, ("abd",)),
        ArtifactSpec("fit", 1, {"seed": 0, "lr": 0.1}),
    ],
)
def test_everything_that_decides_a_result_decides_its_fingerprint(other: ArtifactSpec) -> None:
    assert other.fingerprint != SPEC.fingerprint


def test_the_fingerprint_is_pinned_and_ignores_the_order_of_keys() -> None:
    assert SPEC.fingerprint == ArtifactSpec("fit", 1, {"lr": 0.1, "seed": 0}, ("abc",)).fingerprint
    assert SPEC.fingerprint == "c74c377a766f5f4c"


def test_what_has_no_exact_json_form_has_no_identity() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = ArtifactSpec("fit", 1, {"lr": float("nan")}).fingerprint


def test_a_step_is_complete_once_its_artifact_is_written(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    assert store.read(SPEC) is None
    store.write(SPEC, {"loss": 0.5})
    assert store.read(SPEC) == {"loss": 0.5}
    assert store.read(ArtifactSpec("fit", 1, {"seed": 1})) is None


def test_a_foreign_document_is_no_artifact_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    path = store.write(SPEC, {"loss": 0.5})
    path.write_text('{"fingerprint": "other", "result": {}}')
    assert store.read(SPEC) is None
    path.write_text("{")
    with pytest.raises(StorageError, match=path.name):
        store.read(SPEC)


def test_the_record_keeps_the_parts_apart_and_adds_up_time(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).ensure()
    assert recall(workspace, "sample") is None
    remember(workspace, "sample", {"count": 3})
    remember_phase(workspace, "short", {"version": 1})
    remember_phase(workspace, "long", {"version": 2})
    with stage(workspace, "fit"):
        pass
    first = recall(workspace, "stages")["fit"]
    with pytest.raises(ValueError, match="boom"), stage(workspace, "fit"):
        raise ValueError("boom")
    assert recall(workspace, "stages")["fit"] > first
    assert recall(workspace, "sample") == {"count": 3}
    assert recall(workspace, "phases") == {"short": {"version": 1}, "long": {"version": 2}}
