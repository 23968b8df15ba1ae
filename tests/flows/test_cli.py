"""The command line beyond `test_command_line.py`: every option is explained, and every error finds its words."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.errors import exit_code, message
from flows.parameters import EvaluateParameters, TrainParameters
from flows.settings import RuntimeSettings

TOP: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS: dict[str, Any] = {  # those of a group in its place
    f"{name} {inner}".strip(): command
    for name, group in TOP.items()
    for inner, command in getattr(group, "commands", {"": group}).items()
}


def caught(fail: Any) -> Exception:
    try:
        fail()
    except Exception as error:
        return error
    raise AssertionError("no error")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_explained(name: str) -> None:
    command = COMMANDS[name]
    assert len(command.help.split()) >= 8
    for parameter in command.params:
        assert parameter.help or parameter.name == "help", f"{name} does not explain {parameter.name}"
        lost = re.findall(r"(?<!\\)\[[a-z][^\]]*\]", parameter.help or "")
        assert not lost, f"{name}: {lost} would be read as markup, and not shown; put a backslash before it"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_be_pointed_at_a_workspace_and_debugged(name: str) -> None:
    assert {"home", "debug"} <= {parameter.name for parameter in COMMANDS[name].params}


@pytest.mark.parametrize(("name", "meant"), [("trian", "train"), ("evalaute", "evaluate")])
def test_an_unknown_command_is_refused_with_the_nearest(name: str, meant: str) -> None:
    result = CliRunner().invoke(app, [name], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.output


def test_an_unknown_option_is_refused() -> None:
    result = CliRunner().invoke(app, ["train", "--phaze", "x"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "--phase" in click.unstyle(result.output)


def test_report_of_nothing_is_a_page(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["report", "--home", str(tmp_path)]).exit_code == 0
    assert "</html>" in (tmp_path / "reports" / "report.html").read_text()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"architecture": "pacr"}, "--architecture: unknown architecture 'pacr'; known: "),
        ({"outer_steps": 0}, "--outer-steps: "),
        ({"learning_rate": -1}, "--learning-rate: "),
        ({"seed": 2**31}, "--seed: "),
        ({"horizont": 3}, "--horizont: "),
        ({"phase": ""}, "--phase: "),
        ({"phase": "long"}, "--phase: unknown phase 'long'; known: 'long_horizon', 'short_horizon'."),
    ],
)
def test_what_cannot_be_names_the_option(values: dict[str, Any], words: str) -> None:
    error = caught(lambda: TrainParameters(**values))
    assert message(error).startswith(words)
    assert exit_code(error) == 2


def test_options_are_called_as_on_the_command_line() -> None:
    error = caught(lambda: RuntimeSettings(num_workers=0))
    assert message(error).startswith("--workers: ")
    error = caught(lambda: EvaluateParameters(evaluation_sets=("heldout",)))
    assert message(error) == (
        "--evaluation-set: unknown evaluation set 'heldout'; known: 'embedded24', 'fast67', 'heldout_demo', "
        "'indistribution_demo', 'velodrome109', 'velodrome83'. Did you mean 'heldout_demo'?"
    )


def test_a_budget_and_a_place_are_called_as_on_the_command_line() -> None:
    error = caught(lambda: EvaluateParameters(baselines=("lr51",)))
    assert message(error).startswith("--budget: unknown budget or baseline 'lr51'")
    error = caught(lambda: EvaluateParameters(optimizer=""))
    assert message(error).startswith("optimizer: String should have at least 1 character")


def test_a_full_disk_is_named_wherever_it_is_noticed() -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")

    error = caught(fail)
    assert message(error) == (
        "No space left on device: `/data/x`. Free some space, or point KEIRIN_HOME elsewhere."
    )
    assert exit_code(error) == 1


def test_a_bug_says_that_it_is_one() -> None:
    error = caught(lambda: [][1])
    assert message(error).startswith("unexpected IndexError: list index out of range (`--debug`")
