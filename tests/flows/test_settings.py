"""Where things run: options before variables before defaults, and what of it workers are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.settings import RuntimeSettings
from flows.workers.environment import apply_worker_environment, worker_environment


def test_options_win_over_variables_and_variables_over_defaults() -> None:
    environment = {"KEIRIN_NUM_WORKERS": "3", "KEIRIN_HOME": "/srv/there", "KEIRIN_MEMORY_LIMIT": ""}
    settings = RuntimeSettings.from_environment(environment, num_workers=5, scheduler=None)
    assert settings.num_workers == 5
    assert settings.home == Path("/srv/there")
    assert settings.memory_limit == "4GiB"
    assert settings.scheduler is None


def test_variables_carry_settings_to_another_process() -> None:
    settings = RuntimeSettings(
        home=Path("/x y"), scheduler="tcp://10.0.0.1:8786", num_workers=2, memory_limit="1.5GiB"
    )
    assert RuntimeSettings.from_environment(settings.as_environment()) == settings


def test_an_address_without_a_protocol_gets_the_right_one_suggested() -> None:
    with pytest.raises(ValidationError, match=r"Try 'tcp://10\.0\.0\.1:8786'"):
        RuntimeSettings(scheduler="10.0.0.1:8786")


@pytest.mark.parametrize("values", [{"num_workers": 0}, {"memory_limit": "lots"}, {"wrokers": 2}])
def test_nonsense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RuntimeSettings.model_validate(values)


def test_a_worker_gets_the_threads_it_was_given(tmp_path: Path) -> None:
    one = worker_environment(RuntimeSettings(home=tmp_path))
    four = worker_environment(RuntimeSettings(home=tmp_path, threads_per_worker=4, platform="cuda"))
    assert one["JAX_PLATFORMS"] == "cpu"
    assert "intra_op_parallelism_threads=1" in one["XLA_FLAGS"]
    assert four["JAX_PLATFORMS"] == "cuda"
    assert "intra_op_parallelism_threads=4" in four["XLA_FLAGS"]
    assert one["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "compilation_cache")


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    environment = {"XLA_FLAGS": "--mine", "KEIRIN_HOME": "/elsewhere"}
    apply_worker_environment(RuntimeSettings(home=tmp_path), environment)
    assert environment["XLA_FLAGS"] == "--mine"
    assert environment["KEIRIN_HOME"] == str(tmp_path.resolve())  # an option: it wins
    assert environment["OMP_NUM_THREADS"] == "1"
