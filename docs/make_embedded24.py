"""Renews docs/embedded24.md: its tables, pictures and pages, from the reports of the evaluations that it names.

    python docs/make_embedded24.py FOLDER

FOLDER has a `report.json`, which `keirin report` writes beside its page, for each learned optimizer and horizon:
`pacer-200.json`, `velo-200.json`, `pacer-2000.json` and so on. A table stands between two comments of its name,
`<!-- one-200 -->` and `<!-- /one-200 -->`; what is written around them is left as it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from curriculum.evaluation.summary import INITIALISATION
from flows.reporting import EvaluationReport, ReportData, comparison_png, render_html, speedup_cdf_png
from flows.reporting.data import TaskReport
from flows.reporting.statistics import task_speedup
from flows.reporting.table_views import table_views

DOCS = Path(__file__).parent
PAGE = DOCS / "embedded24.md"
CANDIDATES = ("pacer", "velo")
HORIZONS = (2000, 200)
STEM = {200: "embedded24", 2000: "embedded24-2000"}
COLUMNS = {
    "interquartile mean": "interquartile mean",
    "95 %, other seeds": "95 % over seeds",
    "95 %, other tasks": "95 % over tasks",
    "10 %": "10 %",
    "50 %": "50 %",
    "share of tasks ≥ 2× the normaliser": "at least 2×",
    "tasks at the cap": "at the cap",
    "tasks no better than the start": "no better than the start",
    "diverged runs": "diverged runs",
}
"""Of a report's tables those that the page has, under shorter names."""
TRAININGS = {"trainings per task": "trainings"}
LOSSES = {
    "training mean": "training, mean",
    "training median": "median",
    "test mean": "test, mean",
    "test median": "median",
}
Rows = dict[str, dict[str, str]]


def rows_of(evaluation: EvaluationReport, title: str) -> Rows:
    """Returns a report's table, each row by its name and each cell by the name of its column."""
    found: Rows = {}
    for view in table_views(evaluation):
        if view.title == title:
            heads, split = [], ""
            for head in view.head:  # of losses: "training mean", "median", "test mean", "median"
                split = head.split()[0] if head.endswith(" mean") else split
                heads.append(f"{split} median" if head == "median" else head)
            found = {row[0]: dict(zip(heads, row, strict=True)) for row in view.rows}
    return found


def merged(evaluations: Iterable[EvaluationReport], title: str) -> Rows:
    """Returns the rows of all reports; what stands in several, as every baseline does, counts once."""
    rows: Rows = {}
    for evaluation in evaluations:
        for name, cells in rows_of(evaluation, title).items():
            rows.setdefault(name, cells)
    return rows


def best_first(rows: Rows, column: str) -> Rows:
    """Returns the rows in the order of a column of numbers, the highest first."""
    return {
        name: rows[name] for name in sorted(rows, key=lambda name: number(rows[name][column]), reverse=True)
    }


def number(cell: str) -> float:
    """Returns the number in a cell, of which it may be a bound; −1 where there is none."""
    text = re.sub(r"[≥×≤]", "", cell).split()
    return float(text[0]) if text and text[0][0].isdigit() else -1.0


def one_setting_each(rows: Rows) -> Rows:
    """Returns one row of each baseline: of the two settings that a report has the one that is best in the mean."""
    best: dict[str, str] = {}
    for name, cells in rows.items():
        baseline = re.sub(r", (learning rate|trial) .*", "", name)
        if baseline not in best or number(cells["mean"]) > number(rows[best[baseline]]["mean"]):
            best[baseline] = name
    return {name: cells for name, cells in rows.items() if name in best.values()}


def markdown(rows: Rows, columns: dict[str, str]) -> str:
    """Returns a table, the learned optimizers in bold."""
    lines = [_line(["", *columns.values()]), "|---" * (len(columns) + 1) + "|"]
    lines += [
        _line([_name(name), *(_cell(cells[column]) for column in columns)]) for name, cells in rows.items()
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r" of (24|72)$", "", text.replace("×", "").replace(" to ", "–").replace("\u202f", " "))


def _name(name: str) -> str:
    for candidate in CANDIDATES:
        shipped = f"shipped:{candidate}"
        name = name.replace(f"{shipped} before training", f"`{candidate}` before training")
        name = f"**`{shipped}`**" if name == shipped else name.replace(f"{shipped},", f"`{shipped}`,")
    return name


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def tasks_table(reports: dict[tuple[str, int], EvaluationReport]) -> str:
    """Returns a row per task: the speed-up of each learned optimizer, and of `pacer` before training."""
    columns = {
        "`pacer`, 2 000 steps": ("pacer", 2000, ""),
        "untrained, 2 000": ("pacer", 2000, INITIALISATION),
        "`pacer`, 200": ("pacer", 200, ""),
        "untrained, 200": ("pacer", 200, INITIALISATION),
        "`velo`, 2 000": ("velo", 2000, ""),
        "`velo`, 200": ("velo", 200, ""),
    }
    rows = []
    for task in reports["pacer", 2000].tasks:
        values, cells = [], []
        for candidate, horizon, who in columns.values():
            value, text = _speedup(reports[candidate, horizon], task.name, who)
            values.append(value)
            cells.append(text)
        name = task.name.removeprefix("embedded-")
        rows.append((not task.familiar, -values[0], _line([name, "yes" if task.familiar else "no", *cells])))
    head = ["task", "family drawn", *columns]
    return "\n".join([_line(head), "|---" * len(head) + "|", *(line for _, _, line in sorted(rows))])


def _speedup(evaluation: EvaluationReport, name: str, who: str) -> tuple[float, str]:
    """Returns a task's speed-up over tuned Adam, and as text, that of the candidate with its range."""
    task: TaskReport = next(each for each in evaluation.tasks if each.name == name)
    summary = task_speedup(evaluation, task, who or evaluation.candidate.name, evaluation.baselines[0].name)
    if summary is None:
        return -1.0, "–"
    text = _cell(summary.text).replace("no better than the start", "0")
    has_range = not who and text != "0" and "div" not in text
    return summary.value, f"{text} ({summary.low:.2f}–{summary.high:.2f})" if has_range else text


def tables(reports: dict[tuple[str, int], EvaluationReport]) -> dict[str, str]:
    """Returns every table of the page by its name."""
    found = {"tasks": tasks_table(reports)}
    for horizon in HORIZONS:
        both = [reports[candidate, horizon] for candidate in CANDIDATES]
        one = best_first(merged(both, "One training per task"), "interquartile mean")
        best = best_first(merged(both, "The best of several trainings per task"), "interquartile mean")
        losses = merged(both, "Normalised final losses")
        lowest = dict(sorted(losses.items(), key=lambda row: float(row[1]["training mean"])))
        found[f"one-{horizon}"] = markdown(one_setting_each(one), COLUMNS)
        found[f"best-{horizon}"] = markdown(best, TRAININGS | COLUMNS)
        found[f"losses-{horizon}"] = markdown(lowest, TRAININGS | LOSSES)
        if clock := merged(both, "By the clock"):
            found[f"clock-{horizon}"] = markdown(best_first(clock, "interquartile mean"), COLUMNS)
    return found


def put(page: str, name: str, table: str) -> str:
    """Returns the page with the table between its comments.

    Raises:
      ValueError: If the page has no place for it.
    """
    pattern = rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)"
    written, count = re.subn(pattern, lambda found: f"{found[1]}\n{table}\n{found[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{PAGE} must have one pair of comments {name!r}, got {count}")
    return written


def main() -> None:
    """Reads the reports, writes tables, pictures and pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    reports: dict[tuple[str, int], EvaluationReport] = {}
    for candidate in CANDIDATES:
        for horizon in HORIZONS:
            path = folder / f"{candidate}-{horizon}.json"
            data = ReportData.model_validate_json(path.read_text("utf-8"))
            if data.evaluation is None:
                parser.error(f"{path} has no evaluation. Run `keirin evaluate` and `keirin report` first.")
            reports[candidate, horizon] = data.evaluation
            stem = f"{STEM[horizon]}-{candidate}"
            (DOCS / "images" / f"{stem}-cdf.png").write_bytes(speedup_cdf_png(data))
            (DOCS / "images" / f"{stem}-comparison.png").write_bytes(comparison_png(data))
            (DOCS / "reports" / f"{stem}.html").write_text(render_html(_without_home(data)), "utf-8")
    page = PAGE.read_text("utf-8")
    for name, table in tables(reports).items():
        page = put(page, name, table)
    PAGE.write_text(page, "utf-8")


def _without_home(data: ReportData) -> ReportData:
    """Returns the report with the workspace's path, which is that of one machine, written as `.keirin`."""
    (home,) = (
        Path(each.where).parent.parent for each in data.locations if each.where.endswith("report.html")
    )
    return ReportData.model_validate_json(data.model_dump_json().replace(str(home), ".keirin"))


if __name__ == "__main__":
    main()
