"""An outer step that is validated is over when its validation is: stopped in between, it is done again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import curriculum.meta_train
from curriculum.phase import Phase
from storage.checkpoints import Checkpoint, CheckpointStore, load_checkpoint
from storage.workspace import Workspace


def last_checkpoint(workspace: Workspace) -> Checkpoint:
    store = CheckpointStore(workspace.checkpoints)
    (run,) = store.phases()
    info = store.latest_good(run)
    assert info is not None
    return load_checkpoint(info)


@pytest.mark.parametrize("outer_step", [2, 4])
def test_a_run_stopped_in_a_validation_is_the_uninterrupted_one(
    outer_step: int,
    keirin: Callable[..., Any],
    tiny: tuple[Phase, ...],
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The validation in the middle of a phase, and the last, without which the last theta could not be the best."""
    validate = curriculum.meta_train._validate

    def stopped(phase: Any, tasks: Any, optimizer: Any, state: Any, *arguments: Any, **keywords: Any) -> Any:
        if int(state.outer_step) == outer_step:
            raise OSError("the machine was switched off")
        return validate(phase, tasks, optimizer, state, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(curriculum.meta_train, "_validate", stopped)
        assert keirin("train", "--phase", "first").code != 0
    assert last_checkpoint(workspace).info.outer_step == outer_step - 1
    again = keirin("train", "--phase", "first")
    assert again.code == 0
    assert f"continues from outer step {outer_step - 1} of 4" in again.out
    assert keirin("train", "--phase", "first", "--home", tmp_path / "other").code == 0
    ours, expected = last_checkpoint(workspace), last_checkpoint(Workspace(tmp_path / "other"))
    assert ours.info.outer_step == expected.info.outer_step == 4
    for name, tree in expected.trees.items():
        assert sorted(ours.trees[name]) == sorted(tree)
        for path, leaf in tree.items():
            np.testing.assert_array_equal(ours.trees[name][path], leaf, err_msg=f"{name} {path}")
