"""Draws the meta-training runs of a workspace side by side, and prints them as a table: for docs/results.md.

    python docs/make_results.py --home .keirin [--phase four_small_tasks] [--out docs/images/results.png]

One column of panels per architecture, its runs by mode: validation loss of the averaged theta over minutes,
and over inner steps. Numbers come from MLflow and from the live pages; a mark is where something happened to a run.
"""

from __future__ import annotations

import argparse
import bisect
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from mlflow import MlflowClient

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from flows.reporting.live_data import LiveReport
from storage.resolver import resolve_checkpoint
from storage.workspace import Workspace

COLORS = {"synchronous": "#1f5fd0", "asynchronous": "#c77400"}
VERSION = "keirin.version"


class RunOnRecord(NamedTuple):
    """One run of a phase that has registered its result."""

    report: LiveReport
    architecture: str
    version: str
    seconds: list[tuple[int, float]]  # (outer step, seconds of the run so far)
    inner_steps: list[tuple[int, float]]

    def at(self, column: list[tuple[int, float]], step: int) -> float:
        """Returns a total at an outer step; 0 before the first."""
        number = bisect.bisect_right(column, (step, float("inf")))
        return column[number - 1][1] if number else 0.0


def read_runs(workspace: Workspace, phase: str) -> list[RunOnRecord]:
    """Returns the runs of a phase that have a live page and a registered result, in the order of their versions."""
    client, runs = MlflowClient(workspace.tracking_uri), []
    for path in sorted(workspace.live_pages.glob("*.json")):
        report = LiveReport.model_validate_json(path.read_text("utf-8"))
        if report.phase != phase:
            continue
        version = client.get_run(report.mlflow_run).data.tags.get(VERSION)
        if version is None:
            print(f"{report.run_name} has no result yet: left out")
            continue
        metadata = resolve_checkpoint(f"models:/keirin/{version}", workspace).metadata
        columns = (_history(client, report.mlflow_run, name) for name in ("seconds", "inner_steps"))
        runs.append(RunOnRecord(report, metadata["architecture"]["architecture"], version, *columns))
    return sorted(runs, key=lambda run: int(run.version))


def _history(client: MlflowClient, run: str, metric: str) -> list[tuple[int, float]]:
    """Returns the values by outer step; of a step that was made twice, after a kill, the later."""
    return sorted({m.step: m.value for m in client.get_metric_history(run, metric)}.items())


def draw(runs: list[RunOnRecord], path: Path) -> None:
    """Draws the picture."""
    architectures = list(dict.fromkeys(run.architecture for run in runs))
    style: dict[str, Any] = {"axes.spines.right": False, "axes.spines.top": False, "font.size": 9}
    with mpl.rc_context({**style, "figure.constrained_layout.use": True, "legend.frameon": False}):
        figure, grid = plt.subplots(
            2, len(architectures), figsize=(4.6 * len(architectures), 6.4), squeeze=False, sharey="col"
        )
        for column, architecture in enumerate(architectures):
            for run in (run for run in runs if run.architecture == architecture):
                by_minutes = [(step, seconds / 60) for step, seconds in run.seconds]
                by_steps = [(step, number / 1e6) for step, number in run.inner_steps]
                _draw_run(grid[0, column], run, by_minutes)
                _draw_run(grid[1, column], run, by_steps)
            grid[0, column].set_title(architecture, loc="left", fontweight="bold")
            grid[0, column].set_xlabel("minutes")
            grid[1, column].set_xlabel("million inner steps")
            grid[0, column].legend()
        for row in grid:
            row[0].set_ylabel("validation loss")
        figure.savefig(path, dpi=120)


def _draw_run(axes: Axes, run: RunOnRecord, column: list[tuple[int, float]]) -> None:
    curve = run.report.curve("validation_loss")
    xs = [run.at(column, step) for step in curve.steps]
    color = COLORS.get(run.report.mode, "#5f6b1e")
    axes.plot(xs, curve.values, ".-", color=color, linewidth=1.2, markersize=4, label=run.report.mode)
    for event in run.report.events:
        nearest = min(range(len(curve.steps)), key=lambda i: abs(curve.steps[i] - event.outer_step))
        marker = "P" if event.what.startswith("continued") else "D"
        axes.plot(run.at(column, event.outer_step), curve.values[nearest], marker, color=color, markersize=8)


def table(runs: list[RunOnRecord]) -> str:
    """Returns the runs as a Markdown table."""
    lines = [
        "| version | architecture | mode | outer steps | minutes | inner steps | per second | validation loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        report, losses = run.report, run.report.curve("validation_loss").values
        rate, minutes = report.inner_steps / report.seconds, report.seconds / 60
        lines.append(
            f"| {run.version} | {run.architecture} | {report.mode} | {report.outer_step} | {minutes:.1f} "
            f"| {report.inner_steps / 1e6:.2f} M | {rate:,.0f} | {losses[0]:.3f} → {min(losses):.3f} |"
        )
        lines += [f"|  |  |  | {event.outer_step} | {event.what} |  |  |  |" for event in report.events]
    return "\n".join(lines)


def main() -> None:
    """Reads the workspace, draws and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(".keirin"), help="the workspace")
    parser.add_argument("--phase", default="four_small_tasks", help="whose runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images" / "results.png")
    args = parser.parse_args()
    runs = read_runs(Workspace(args.home), args.phase)
    if not runs:
        parser.error(f"no complete run of {args.phase!r} in {args.home}. Run `keirin train` there first.")
    draw(runs, args.out)
    print(table(runs))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
