"""References to weights in files: who they are, what they start from, and what cannot be said of them."""

from __future__ import annotations

import io
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import lopt
from curriculum.training_domain import is_familiar, is_held_out
from flows.errors import StepIncompleteError
from flows.evaluate import _label
from flows.optimizer_reference import initial_theta, resolve_optimizer
from flows.parameters import PromoteParameters
from flows.progress import Reporter
from flows.promote import run_promotion
from flows.selection import lineage
from flows.session import Session
from flows.settings import RuntimeSettings
from lopt.architectures import ARCHITECTURES
from lopt.registry import UnknownNameError
from lopt.use.shipped import read_arrays, write_weights
from task_generator.evaluation_set import EVALUATION_SETS


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(RuntimeSettings(home=tmp_path / "home"), Reporter(Console(file=io.StringIO())))


@pytest.mark.parametrize("name", ["pacer", "velo"])
def test_what_the_shipped_weights_were_trained_on_holds_out_embedded24(name: str, session: Session) -> None:
    """Fails where a distribution was redefined since, too: then nobody knows, and they are to be made anew."""
    trained_on = resolve_optimizer(f"shipped:{name}", session).trained_on
    assert trained_on is not None
    assert [domain.phase for domain in trained_on] == ["broad_short", "broad_long", "broad_longer"]
    tasks = EVALUATION_SETS["embedded24"]
    assert [is_held_out(task.config, trained_on) for task in tasks] == [True] * 24
    assert sum(is_familiar(task.config, trained_on) is False for task in tasks) == 8


def test_weights_of_unknown_training_are_an_optimizer(session: Session) -> None:
    found = resolve_optimizer("shipped:celo2", session)
    arrays = dict(read_arrays("shipped:celo2")[1])
    leaves, _ = jax.tree_util.tree_flatten_with_path(found.theta)
    assert {jax.tree_util.keystr(path) for path, _ in leaves} == set(arrays)
    for path, leaf in leaves:
        np.testing.assert_array_equal(leaf, arrays[jax.tree_util.keystr(path)])
    assert (found.version, found.trained_on) == (None, None)
    assert _label(found) == "shipped:celo2"
    assert lineage("shipped:celo2", session) == (found.fingerprint,)
    jax.tree.map(np.testing.assert_array_equal, found.initial_theta, initial_theta(found.architecture, 0))


def test_an_architecture_before_any_training_is_one(session: Session) -> None:
    found = resolve_optimizer("initial:pacer", session)
    learned, theta = lopt.load_theta("initial:pacer")
    assert found.config() == learned.config.model_dump(mode="json")
    jax.tree.map(np.testing.assert_array_equal, found.theta, theta)
    jax.tree.map(np.testing.assert_array_equal, found.initial_theta, theta)
    assert found.trained_on == ()
    assert is_held_out(EVALUATION_SETS["embedded24"][0].config, found.trained_on)
    assert _label(found) == "initial:pacer"
    assert lineage("initial:pacer", session) == (found.fingerprint,)
    with pytest.raises(UnknownNameError, match="Did you mean 'pacer'"):
        resolve_optimizer("initial:pacr", session)


def test_a_file_of_the_same_weights_is_the_same_optimizer(session: Session, tmp_path: Path) -> None:
    shipped = resolve_optimizer("shipped:pacer", session)
    config = ARCHITECTURES["pacer"].model_validate(shipped.config())
    write_weights(tmp_path / "mine.npz", config, lopt.load_theta("shipped:pacer")[1])
    mine = resolve_optimizer(str(tmp_path / "mine.npz"), session)
    assert mine.fingerprint == shipped.fingerprint
    assert _label(mine).endswith("mine.npz")


def test_what_is_not_there_is_named(session: Session, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'pacer'"):
        resolve_optimizer("shipped:pacr", session)
    with pytest.raises(FileNotFoundError, match=r"no weights file .*absent\.npz"):
        resolve_optimizer(str(tmp_path / "absent.npz"), session)
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="damaged or not a weights file"):
        resolve_optimizer(str(tmp_path / "bad.npz"), session)


def test_what_is_not_registered_is_not_promoted(session: Session) -> None:
    with pytest.raises(StepIncompleteError, match="'shipped:pacer' is not registered"):
        run_promotion(PromoteParameters(optimizer="shipped:pacer"), session)
