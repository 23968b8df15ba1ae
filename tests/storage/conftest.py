"""Fixtures of the storage tests: small trees, tiny data sets, one tracking database for all (it takes seconds)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dataset_files import write_mnist
from prepared_datasets import NUM_TEST, NUM_TRAIN

from storage.checkpoints import CheckpointInfo, CheckpointStore
from storage.mlflow_client import migrate_tracking_database
from storage.workspace import Workspace


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.fixture
def trees() -> Callable[[int], dict[str, Any]]:
    """Returns a function from a seed to what a training run saves."""

    def make(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        theta = {"layer": {"w": rng.normal(size=(3, 4)).astype(np.float32), "b": np.zeros(4, np.float32)}}
        return {
            "theta": jax.tree.map(jnp.asarray, theta),
            "step": jnp.int32(seed),
            "key": jax.random.key(seed),
        }

    return make


@pytest.fixture
def saved(store: CheckpointStore, trees: Callable[[int], dict[str, Any]]) -> list[CheckpointInfo]:
    """Three checkpoints of the phase `short`: steps 10, 20, 30."""
    metadata = {"architecture": {"architecture": "pacer"}, "fingerprint": "abc"}
    return [store.save("short", step, trees(step), metadata) for step in (10, 20, 30)]


@pytest.fixture(scope="session")
def tracked_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("tracked")).ensure()
    migrate_tracking_database(workspace)
    return workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home").ensure()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The four files of a tiny MNIST."""
    write_mnist(tmp_path / "files", NUM_TRAIN, NUM_TEST)
    return tmp_path / "files"
