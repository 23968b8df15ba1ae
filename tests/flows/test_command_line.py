"""The command line: help without slow imports, samples that repeat, and mistakes answered in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flows.commands.show  # noqa: F401 - Prefect keeps the streams that it is imported with: not a runner's
from flows.cli import app
from flows.commands.errors import exit_code, guarded, message
from flows.errors import SchedulerUnreachableError, StepIncompleteError
from lopt.registry import lookup

COMMANDS = ["demo", "up", "sample", "time", "fit", "train", "evaluate", "promote", "run", "status", "report"]
COMMANDS += ["export", "follow", "baselines"]


def keirin(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = {**os.environ, "KEIRIN_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    assert "--home" in result.output
    assert len(re.findall(r"--[a-z]", result.output)) >= 3


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "slow = {'jax', 'prefect', 'mlflow', 'distributed', 'zarr', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "raise SystemExit(str(slow) if slow else 0)"
    )
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - start < 5.0  # 0.3 s on an idle machine


def test_sampling_prints_json_that_reads_back_and_repeats(tmp_path: Path) -> None:
    from task_generator.task_config import parse_task_config

    arguments = ["sample", "--distribution", "demo", "--seed", "3", "--json", "--home", str(tmp_path)]
    four = json.loads(CliRunner().invoke(app, [*arguments, "--count", "4"]).stdout)
    two = json.loads(CliRunner().invoke(app, [*arguments, "--count", "2"]).stdout)
    assert four[:2] == two
    assert len({parse_task_config(config).fingerprint() for config in four}) == 4


def test_sampling_shows_a_table(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["sample", "--count", "3", "--home", str(tmp_path)], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0
    assert "parameters" in result.output
    assert len(re.findall(r"(mlp|conv) \d", result.output)) == 3


def test_an_unknown_name_is_one_line_with_the_nearest_one(tmp_path: Path) -> None:
    result = keirin("sample", "--distribution", "dmo", home=tmp_path)
    assert result.returncode == 2
    assert result.stderr.strip().count("\n") == 0
    assert "unknown task distribution 'dmo'" in result.stderr
    assert "Did you mean 'demo'?" in result.stderr


def test_a_number_out_of_bounds_names_the_option(tmp_path: Path) -> None:
    result = keirin("sample", "--count", "0", home=tmp_path)
    assert result.returncode == 2
    assert "--count" in result.stderr
    assert "greater than or equal to 1, got 0" in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in keirin("sample", "--count", "0", "--debug", home=tmp_path).stderr


def test_status_of_an_empty_workspace_says_how_to_begin(tmp_path: Path) -> None:
    result = keirin("status", home=tmp_path / "none")
    assert result.returncode == 0
    assert "keirin demo" in result.stdout
    assert not (tmp_path / "none").exists()  # looking creates nothing


def test_a_workspace_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = keirin("train", home=tmp_path / "file")
    assert result.returncode == 1
    assert "Error: the workspace" in result.stderr
    assert "Traceback" not in result.stderr


def raise_unknown() -> None:
    lookup({"adam": 1}, "adma", kind="baseline")


def raise_foreign() -> None:
    json.loads("{")


@pytest.mark.parametrize(
    ("error", "code"),
    [(SchedulerUnreachableError("gone"), 1), (StepIncompleteError("run `keirin fit` first"), 1)],
)
def test_our_errors_speak_for_themselves(error: Exception, code: int) -> None:
    assert message(error) == str(error)
    assert exit_code(error) == code


def test_an_error_of_somebody_else_is_called_unexpected(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(raise_foreign, debug=False) == 1
    assert "unexpected JSONDecodeError" in capsys.readouterr().err


def test_an_unknown_name_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(raise_unknown, debug=False) == 2
    assert "Did you mean 'adam'?" in capsys.readouterr().err
