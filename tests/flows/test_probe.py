"""`keirin probe`: files, record and refusals; the drawer; the page of all probes."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import flows.probe
import lopt
from curriculum.probes import PROBES, Panel, ProbeResult, Series
from flows.cli import app
from flows.commands.errors import exit_code, message
from flows.parameters import ProbeParameters
from flows.probe import probe_page, run_probes
from flows.probe_subject import resolve_subject, subject_fingerprint
from flows.progress import Reporter
from flows.reporting.probe_plots import probe_png
from flows.session import Session
from flows.settings import RuntimeSettings
from lopt.registry import UnknownNameError
from storage.tracking import InMemoryTracker
from storage.workspace import Workspace

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]
PNG = b"\x89PNG\r\n\x1a\n"
LINE = Series(name="line", x=(1.0, 10.0), y=(0.5, 0.25), low=(0.4, 0.2), high=(0.6, 0.3), marked=True, n=3)


def result_with(*panels: Panel) -> ProbeResult:
    return ProbeResult(
        probe="made_up",
        title="Made up",
        question="Does it draw?",
        source="nothing",
        how_to_read="Look.",
        deviations="None.",
        subject="nobody",
        n=3,
        counted="numbers",
        findings=("It does.",),
        panels=panels,
        config={},
    )


def panel(*series: Series, **fields: object) -> Panel:
    return Panel.model_validate({"title": "t", "x_label": "x", "y_label": "y", "series": series, **fields})


@pytest.mark.parametrize(
    "drawn",
    [
        panel(LINE),
        panel(LINE, x_scale="log", y_scale="log"),
        panel(LINE.model_copy(update={"y": (float("nan"), float("inf"))}), y_scale="log"),
        panel(*(LINE.model_copy(update={"role": "ordered", "name": str(i)}) for i in range(15))),
        panel(*(LINE.model_copy(update={"role": role}) for role in ("category", "baseline", "reference", "other"))),
        panel(LINE.model_copy(update={"colour": (0.0, 1.0)}), kind="points", equal_axes=True),
        panel(kind="table", rows=("a", "b"), columns=("c",), values=((0.5,), (1.0,)), colour_label="share"),
        panel(kind="table", rows=("a",), columns=("c",), values=((0.0,),), colour_label="times"),
    ],
    ids=["line", "log", "diverged", "many", "roles", "points", "shares", "zeros"],
)  # fmt: skip
def test_whatever_a_result_holds_is_drawn(drawn: Panel) -> None:
    assert probe_png(result_with(drawn, panel(LINE))).startswith(PNG)


def test_a_page_says_what_it_shows() -> None:
    page = probe_page(result_with(panel(LINE)), "made-up.png")
    for part in ("# Made up · nobody", "![Made up](made-up.png)", "- It does.", "Look.", "n = 3 numbers"):
        assert part in page


def test_the_page_of_all_probes_is_up_to_date() -> None:
    script = Path(__file__).parents[2] / "docs" / "make_probes_page.py"
    page = runpy.run_path(str(script))["page"]()
    assert script.with_name("probes.md").read_text("utf-8") == page, "run `make probes-page`"
    assert all(f"`keirin probe {name}`" in page for name in PROBES)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = RuntimeSettings(home=tmp_path / "home")
    tracker = InMemoryTracker()
    return Session(settings, Reporter(Console(quiet=True)), open_tracker=lambda _: tracker)


def test_a_probe_leaves_a_picture_a_page_numbers_and_a_record(session: Session) -> None:
    parameters = ProbeParameters(
        probe="implicit_regularization", optimizer="initial:learnable_sgd", quick=True
    )
    (picture,) = run_probes(parameters, session)
    assert picture.name == "implicit_regularization-initial-learnable-sgd-quick.png"
    assert picture.parent == session.workspace.reports / "probes"
    assert picture.read_bytes().startswith(PNG)
    result = ProbeResult.model_validate_json(picture.with_suffix(".json").read_text("utf-8"))
    assert result.subject == "learnable_sgd, first weights"
    assert result.how_to_read in picture.with_suffix(".md").read_text("utf-8")
    (run,) = session.tracker.runs.values()
    assert run.status == "FINISHED"
    assert run.tags["keirin.probe"] == "implicit_regularization"
    assert run.params["n"] == result.n
    assert {Path(name).suffix for name in run.artifacts} == {".png", ".md", ".json"}


def test_all_means_all_that_fit(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: PROBES[name] for name in ("controller_outputs", "implicit_regularization", "loss_feature")}
    monkeypatch.setattr(flows.probe, "PROBES", few)
    parameters = ProbeParameters(probe="all", optimizer="initial:learnable_sgd", quick=True)
    assert [path.name.split("-")[0] for path in run_probes(parameters, session)] == [
        "implicit_regularization"
    ]


@pytest.mark.parametrize(
    ("values", "said", "code"),
    [
        ({"probe": "implicit"}, "probe: unknown probe 'implicit'; known: 'all', 'batch_size'", 2),
        ({"optimizer": "initial:pacr"}, "unknown architecture 'pacr'; known: ", 2),
        ({"optimizer": "shipped:pacr"}, "unknown shipped weights 'pacr'; known: ", 2),
        ({"optimizer": "nowhere.npz"}, "no weights file 'nowhere.npz'", 1),
        ({"optimizer": "champion"}, "unknown alias 'champion'", 2),
        (
            {"probe": "loss_feature", "optimizer": "initial:learnable_sgd"},
            "probe 'loss_feature' does not fit learnable_sgd, first weights: it does not read the loss; those",
            1,
        ),
        ({"probe": "controller_outputs"}, "those that have one: 'rnn_mlp', 'velo'", 1),
    ],
)
def test_what_cannot_be_probed_is_one_clear_error(
    session: Session, values: dict[str, Any], said: str, code: int
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the message says
        run_probes(ProbeParameters(**values), session)
    assert said in message(caught.value)
    assert "unexpected" not in message(caught.value)
    assert exit_code(caught.value) == code
    assert not (session.workspace.reports / "probes").exists()


def test_the_command_runs_a_probe_and_says_where_it_is(keirin: Any, workspace: Workspace) -> None:
    answer = keirin("probe", "implicit_regularization", "initial:learnable_sgd", "--quick")
    assert answer.code == 0, answer.err
    assert "implicit_regularization-initial-learnable-sgd-quick.png" in answer.out
    assert keirin("probe", "implicit").error.startswith("probe: unknown probe 'implicit'")


def test_the_list_has_every_probe() -> None:
    result = CliRunner().invoke(app, ["probe", "list"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert all(name in result.output for name in PROBES)


def test_references_name_weights(session: Session) -> None:
    first, shipped = (resolve_subject(ref, session) for ref in ("initial:pacer", "shipped:pacer"))
    assert first.config.architecture == shipped.config.architecture == "pacer"
    assert subject_fingerprint(first) != subject_fingerprint(shipped)
    with pytest.raises(UnknownNameError, match="Did you mean 'velo'"):
        resolve_subject("initial:vello", session)
    for ref in ("initial:pacer", "initial:velo"):  # the same weights for whoever loads them
        jax.tree.map(
            np.testing.assert_array_equal, resolve_subject(ref, session).theta, lopt.load_theta(ref)[1]
        )
