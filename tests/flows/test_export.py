"""Weights in a file: the champion's to the last bit, with what they were trained on; refusals leave nothing."""

from __future__ import annotations

import io
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import lopt
from curriculum.evaluation.summary import EvaluationConfig
from curriculum.phases import get_phase
from curriculum.training_domain import domain_of, is_held_out
from flows.artifacts import ArtifactSpec
from flows.cli import app
from flows.evaluation.records import settings_fingerprint
from flows.evaluation.settings import evaluation_spec
from flows.export import export_weights
from flows.optimizer_reference import (
    INITIAL_SEED,
    TRAINED_ON,
    OptimizerReference,
    initial_theta,
    resolve_optimizer,
)
from flows.progress import Reporter
from flows.session import Session
from flows.settings import RuntimeSettings
from lopt.architectures.pacer import PacerConfig
from lopt.use.shipped import read_arrays, write_weights
from storage.errors import AliasNotFoundError, StorageError
from storage.workspace import Workspace
from task_generator.evaluation_set import EVALUATION_SETS
from task_generator.known_distributions import get_distribution

DOMAINS = [domain_of(get_phase("broad_short")), domain_of(get_phase("broad_long"))]


@pytest.fixture
def session(workspace: Workspace) -> Session:
    return Session(RuntimeSettings(home=workspace.root), Reporter(Console(file=io.StringIO())))


@pytest.fixture
def trained(session: Session) -> str:
    """A checkpoint of two phases, of which the first started with seed 5 and the second with 1."""
    config = PacerConfig(hidden_size=4)
    theta = jax.tree.map(lambda leaf: leaf + 0.25, initial_theta(config.canonical_json(), seed=0))
    metadata = {
        "architecture": config.model_dump(mode="json"),
        "seed": 1,
        INITIAL_SEED: 5,
        TRAINED_ON: [domain.model_dump(mode="json") for domain in DOMAINS],
    }
    return str(session.checkpoints.save("run", 1, {"theta": theta}, metadata).path)


def test_a_file_is_the_checkpoint_with_what_it_was_trained_on(
    session: Session, trained: str, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "mine.npz"
    message = export_weights(trained, path, session)
    assert "broad_short, broad_long" in message
    assert str(path) in message
    before, after = resolve_optimizer(trained, session), resolve_optimizer(str(path), session)
    assert after.fingerprint == before.fingerprint
    assert after.trained_on == before.trained_on == tuple(DOMAINS)
    jax.tree.map(np.testing.assert_array_equal, before.theta, lopt.load_theta(str(path))[1])
    held_out = [is_held_out(task.config, after.trained_on) for task in EVALUATION_SETS["embedded24"]]
    assert held_out == [True] * 24
    assert is_held_out(get_distribution("broad").tasks[0], after.trained_on) is False


def test_the_row_before_training_is_where_training_began(
    session: Session, trained: str, tmp_path: Path
) -> None:
    """Of a file as of its checkpoint; where neither says so, it is another evaluation, on the same tasks."""
    path = str(tmp_path / "mine.npz")
    export_weights(trained, tmp_path / "mine.npz", session)
    began = initial_theta(resolve_optimizer(trained, session).architecture, seed=5)
    specs = []
    for ref in (trained, path):
        found = resolve_optimizer(ref, session)
        jax.tree.map(np.testing.assert_array_equal, found.initial_theta, began)
        specs.append(_spec(found))
    assert specs[0] == specs[1]
    config, theta = lopt.load_theta(path)[0].config, lopt.load_theta(path)[1]
    write_weights(path, config, theta, trained_on=[domain.model_dump(mode="json") for domain in DOMAINS])
    unsaid = _spec(resolve_optimizer(path, session))
    assert unsaid.fingerprint != specs[0].fingerprint
    assert settings_fingerprint(unsaid) == settings_fingerprint(specs[0])


def _spec(optimizer: OptimizerReference) -> ArtifactSpec:
    tasks = list(EVALUATION_SETS["embedded24"])
    return evaluation_spec(optimizer, tasks, EvaluationConfig(), clock=False)


def test_a_checkpoint_that_does_not_say_makes_a_file_that_does_not(
    champions: Workspace, session: Session, tmp_path: Path
) -> None:
    message = export_weights("champion", tmp_path / "mine.npz", session)
    assert "champion (version 2), trained in phases that are not known" in message
    assert resolve_optimizer(str(tmp_path / "mine.npz"), session).trained_on is None


def test_refusals_leave_nothing(session: Session, trained: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(AliasNotFoundError, match="nobody"):
        export_weights("nobody", folder / "mine.npz", session)
    with pytest.raises(ValueError, match=r"must end in '\.npz'"):
        export_weights(trained, folder / "mine.txt", session)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot export weights"):
        export_weights(trained, tmp_path / "file" / "mine.npz", session)
    assert not list(folder.iterdir())


def test_the_command_says_where_and_how_to_load_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    result = CliRunner().invoke(app, ["export", "shipped:pacer", str(path), "--home", str(tmp_path / "home")])
    assert result.exit_code == 0, result.output
    assert f"lopt.load('{path}', num_steps=…)" in result.output
    assert list(read_arrays(str(path))[1]) == list(read_arrays("shipped:pacer")[1])
