"""What a package exports is what it says it exports."""

from __future__ import annotations

import importlib
import types

import pytest


@pytest.mark.parametrize("package", ["lopt", "task_generator"])
def test_all_is_sorted_complete_and_importable(package: str) -> None:
    module = importlib.import_module(package)
    kind = lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
    assert list(module.__all__) == sorted(module.__all__, key=kind)  # constants, classes, functions
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    submodules = {n for n in module.__all__ if isinstance(getattr(module, n), types.ModuleType)}
    assert public == set(module.__all__) - submodules
