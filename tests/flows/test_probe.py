"""`keirin probe`: files, record and refusals; the drawer; the page of all probes."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from curriculum.probes import PROBES, Panel, ProbeResult, Series
from flows.probe import probe_page
from flows.probe_subject import resolve_subject, subject_fingerprint
from flows.progress import Reporter
from flows.reporting.probe_plots import probe_png
from flows.session import Session
from flows.settings import RuntimeSettings
from lopt.registry import UnknownNameError
from storage.workspace import Workspace

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


def test_a_probe_leaves_a_picture_a_page_numbers_and_a_record(keirin: Any, workspace: Workspace) -> None:
    from mlflow.tracking import MlflowClient

    answer = keirin("probe", "implicit_regularization", "initial:learnable_sgd", "--quick")
    assert answer.code == 0, answer.err
    stem = workspace.reports / "probes" / "implicit_regularization-initial-learnable-sgd-quick"
    assert str(stem.with_suffix(".png")) in answer.out
    assert stem.with_suffix(".png").read_bytes().startswith(PNG)
    result = ProbeResult.model_validate_json(stem.with_suffix(".json").read_text("utf-8"))
    assert result.subject == "learnable_sgd, first weights"
    assert result.how_to_read in stem.with_suffix(".md").read_text("utf-8")
    client = MlflowClient(f"sqlite:///{workspace.mlflow_database}")
    (run,) = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], "tags.`keirin.probe` != ''"
    )
    assert run.info.status == "FINISHED"
    assert run.data.params["n"] == str(result.n)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("implicit",), "--probe: unknown probe 'implicit'; known: 'all', 'batch_size'", 2),
        (("update_cost", "initial:pacr"), "unknown architecture 'pacr'; known: ", 2),
        (("update_cost", "shipped:pacr"), "unknown shipped weights 'pacr'; known: ", 2),
        (("update_cost", "nowhere.npz"), "no weights file 'nowhere.npz'", 1),
        (("loss_feature", "initial:learnable_sgd"), "probe 'loss_feature' does not fit learnable_sgd", 1),
        (("controller_outputs", "shipped:pacer"), "those that have one: 'rnn_mlp', 'velo'", 1),
    ],
)
def test_what_cannot_be_probed_is_one_clear_error(
    keirin: Any, workspace: Workspace, arguments: tuple[str, ...], said: str, code: int
) -> None:
    answer = keirin("probe", *arguments)
    assert said in answer.error
    assert answer.code == code
    assert not (workspace.reports / "probes").exists()


def test_the_list_has_every_probe(keirin: Any) -> None:
    answer = keirin("probe", "list")
    assert answer.code == 0
    assert all(name in answer.out for name in PROBES)


def test_references_name_weights(workspace: Workspace) -> None:
    session = Session(RuntimeSettings(home=workspace.root), Reporter(Console(quiet=True)))
    first, shipped = (resolve_subject(ref, session) for ref in ("initial:pacer", "shipped:pacer"))
    assert first.config.architecture == shipped.config.architecture == "pacer"
    assert subject_fingerprint(first) != subject_fingerprint(shipped)
    with pytest.raises(UnknownNameError, match="Did you mean 'velo'"):
        resolve_subject("initial:vello", session)
