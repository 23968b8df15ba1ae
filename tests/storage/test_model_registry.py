"""Versions and aliases; and that the quick reads agree with MLflow's own answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storage.checkpoints import CheckpointInfo, CheckpointStore
from storage.errors import (
    AliasMovedError,
    AliasNotFoundError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    StorageError,
    UnsafePathError,
)
from storage.mlflow_client import tracking_client
from storage.model_registry import ABSENT, ModelRegistry
from storage.registry_reading import parse_reference
from storage.resolver import resolve_checkpoint, resolve_theta
from storage.tracking import MlflowTracker
from storage.workspace import Workspace


@pytest.fixture
def registry(tracked_workspace: Workspace) -> ModelRegistry:
    return ModelRegistry(tracked_workspace)


@pytest.fixture
def run_id(tracked_workspace: Workspace) -> str:
    return MlflowTracker(tracked_workspace).start_run("train").run_id


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    return request.node.name[:60].replace("[", "-").replace("]", "")


def test_promotion_moves_the_champion_and_keeps_the_one_before(
    registry: ModelRegistry, saved: list[CheckpointInfo], run_id: str, model: str
) -> None:
    one, two, three = (registry.register(model, info, run_id, {"why": "test"}) for info in saved)
    assert registry.aliases(model) == {}
    assert registry.promote(model, one) == {"champion": one}
    assert registry.promote(model, three) == {"champion": three, "previous-champion": one}
    assert registry.promote(model, three) == {"champion": three, "previous-champion": one}
    registry.set_alias(model, "candidate", two)
    client = tracking_client(registry.workspace)
    by_mlflow = {k: int(v) for k, v in client.get_registered_model(model).aliases.items()}
    assert (
        registry.aliases(model)
        == by_mlflow
        == {"candidate": two, "champion": three, "previous-champion": one}
    )
    assert registry.versions(model) == [one, two, three]
    tags = client.get_model_version(model, str(two)).tags
    assert (tags["phase"], tags["outer_step"], tags["why"]) == ("short", "20", "test")


def test_the_champion_moves_only_if_it_is_who_was_decided_against(
    registry: ModelRegistry, saved: list[CheckpointInfo], run_id: str, model: str
) -> None:
    one, two, three = (registry.register(model, info, run_id) for info in saved)
    registry.promote(model, one)
    registry.set_alias(model, "champion", three)  # by hand, in MLflow's pages
    with pytest.raises(AliasMovedError, match="version 1 when this was decided and is version 3 now"):
        registry.promote(model, two, expected=one)
    assert registry.aliases(model) == {"champion": three}
    assert registry.promote(model, two, expected=three)["champion"] == two
    assert registry.promote(model, two, expected=three)["champion"] == two  # moved twice is moved once
    registry.tag_version(model, two, {"keirin.decision": "abc"})
    tags = tracking_client(registry.workspace).get_model_version(model, str(two)).tags
    assert tags["keirin.decision"] == "abc"


def test_the_first_champion_is_made_only_if_there_is_none(
    registry: ModelRegistry, saved: list[CheckpointInfo], run_id: str, model: str
) -> None:
    one, two, three = (registry.register(model, info, run_id) for info in saved)
    registry.set_alias(model, "champion", three)  # by hand, in MLflow's pages
    with pytest.raises(AliasMovedError, match="was nobody when this was decided and is version 3 now"):
        registry.promote(model, one, expected=ABSENT)
    assert registry.aliases(model) == {"champion": three}
    assert registry.promote(model, three, expected=ABSENT) == {"champion": three}  # moved twice is moved once
    assert registry.promote(model, two)["champion"] == two  # whoever it was


def test_versions_outlive_the_checkpoints_they_were_made_from(
    registry: ModelRegistry, store: CheckpointStore, saved: list[CheckpointInfo], run_id: str, model: str
) -> None:
    first = registry.register(model, saved[0], run_id)
    theta = {"theta": {"w": np.full(3, 7, np.float32)}}
    store.discard(saved[0])
    second = registry.register(model, store.save("short", 10, theta, {}), run_id)  # same run, phase and step
    shutil.rmtree(store.root)
    weights = [
        resolve_checkpoint(f"models:/{model}/{v}", registry.workspace).trees["theta"] for v in (first, second)
    ]
    assert list(weights[0]) == ["['layer']['b']", "['layer']['w']"]
    np.testing.assert_array_equal(weights[1]["['w']"], theta["theta"]["w"])


def test_mlflow_alone_suffices_to_fetch_one(
    registry: ModelRegistry, saved: list[CheckpointInfo], run_id: str, model: str, tmp_path: Path
) -> None:
    registry.promote(model, registry.register(model, saved[0], run_id))
    version = tracking_client(registry.workspace).get_model_version_by_alias(model, "champion")
    import mlflow

    folder = mlflow.artifacts.download_artifacts(
        artifact_uri=version.source, dst_path=str(tmp_path / "fetched")
    )
    assert resolve_checkpoint(Path(folder)).info.outer_step == 10


def test_theta_by_alias_uri_and_path(
    registry: ModelRegistry, saved: list[CheckpointInfo], run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEIRIN_HOME", str(registry.workspace.root))
    version = registry.register("keirin", saved[1], run_id)
    registry.promote("keirin", version)
    refs = ("champion", "models:/keirin@champion", f"models:/keirin/{version}", str(saved[1].path))
    for ref in refs:
        architecture, theta = resolve_theta(ref)
        assert architecture == {"architecture": "pacer"}
        assert theta["['layer']['w']"].shape == (3, 4)


def test_unknown_names_say_which_are_known_and_the_nearest(
    registry: ModelRegistry, saved: list[CheckpointInfo], run_id: str, model: str, tmp_path: Path
) -> None:
    registry.promote(model, registry.register(model, saved[0], run_id))
    with pytest.raises(
        AliasNotFoundError, match=r"'champoin'.*known: 'champion'\. Did you mean 'champion'\?"
    ):
        resolve_theta(f"models:/{model}@champoin", registry.workspace)
    with pytest.raises(AliasNotFoundError, match=r"no version 9; known: 1"):
        resolve_theta(f"models:/{model}/9", registry.workspace)
    with pytest.raises(AliasNotFoundError, match=f"unknown model.*Did you mean '{model}'"):
        resolve_theta(f"models:/{model}s@champion", registry.workspace)
    with pytest.raises(AliasNotFoundError, match=r"no version 2"):
        registry.promote(model, 2)
    with pytest.raises(AliasNotFoundError, match=r"none yet.*keirin demo"):
        resolve_theta("champion", Workspace(tmp_path / "new"))
    with pytest.raises(CheckpointNotFoundError):
        resolve_theta(str(tmp_path / "nothing"), registry.workspace)
    with pytest.raises(UnsafePathError):
        registry.set_alias(model, "a/b", 1)


@pytest.mark.parametrize("ref", ["models:/keirin", "models:/a@b@c", "models:/../x/1", "models:/a/x"])
def test_what_is_no_reference(ref: str) -> None:
    with pytest.raises(AliasNotFoundError, match="Use an alias like"):
        parse_reference(ref)


def test_a_damaged_champion_is_refused_and_the_previous_one_offered(
    registry: ModelRegistry, saved: list[CheckpointInfo], run_id: str, model: str
) -> None:
    for info in saved[:2]:
        registry.promote(model, registry.register(model, info, run_id))
    (registry.resolve(f"models:/{model}@champion") / "float32" / "0").unlink()
    with pytest.raises(
        CorruptCheckpointError, match=f"`float32/0` is missing.*models:/{model}@previous-champion"
    ):
        resolve_theta(f"models:/{model}@champion", registry.workspace)


def test_a_damaged_checkpoint_is_not_registered(
    registry: ModelRegistry, saved: list[CheckpointInfo], run_id: str, model: str
) -> None:
    (saved[2].path / "float32" / "0").write_bytes(b"")
    with pytest.raises(CorruptCheckpointError, match="step 20"):
        registry.register(model, saved[2], run_id)
    assert registry.versions(model) == []


def test_a_checkpoint_without_an_optimizer(store: CheckpointStore) -> None:
    info = store.save("runtime", 0, {"arrays": {"w": np.ones(2)}}, {})
    with pytest.raises(StorageError, match="no learned optimizer"):
        resolve_theta(str(info.path))


def test_reading_imports_neither_mlflow_nor_zarr_before_they_are_needed(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "import storage.checkpoints, storage.curves, storage.timings, storage.tracking, storage.resolver\n"
        "from storage.model_registry import ModelRegistry\n"
        "from storage.workspace import Workspace\n"
        f"assert ModelRegistry(Workspace({str(tmp_path)!r})).aliases() == {{}}\n"
        "assert not {'mlflow', 'zarr', 'sqlalchemy'} & set(sys.modules), 'imported too early'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
