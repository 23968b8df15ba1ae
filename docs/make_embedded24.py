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

from curriculum.evaluation.comparison import Row
from curriculum.evaluation.head_to_head import HeadToHeadRow
from curriculum.evaluation.summary import INITIALISATION
from flows.reporting import (
    EvaluationReport,
    ReportData,
    comparison_png,
    head_to_head_png,
    render_html,
    speedup_cdf_png,
    untrained_name,
)
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
LOSSES = ("", "trainings", "training, mean", "median", "test, mean", "median")
Rows = dict[str, tuple[Row, dict[str, str]]]
"""By name: the numbers, and the cells of a report's table by their columns."""


def merged(evaluations: Iterable[EvaluationReport], title: str) -> Rows:
    """Returns the rows of that table of all reports, the highest interquartile mean first.

    What stands in several reports, as every baseline does, counts once.
    """
    rows: Rows = {}
    for evaluation in evaluations:
        views = {view.title: view for view in table_views(evaluation)}
        for table in evaluation.tables:
            if table.title == title:
                view = views[title]
                for row, cells in zip(table.rows, view.rows, strict=True):
                    rows.setdefault(row.name, (row, dict(zip(view.head, cells, strict=True))))
    return dict(sorted(rows.items(), key=lambda item: -item[1][0].iqm))


def one_setting_each(rows: Rows) -> Rows:
    """Returns one row of each baseline: of the two settings that a report has the one that is best in the mean."""
    best: dict[str, Row] = {}
    for name, (row, _) in rows.items():
        baseline = re.sub(r", (learning rate|trial) .*", "", name)
        best[baseline] = max(best.get(baseline, row), row, key=lambda each: each.mean_speedup)
    kept = {row.name for row in best.values()}
    return {name: found for name, found in rows.items() if name in kept}


def markdown(rows: Rows, columns: dict[str, str]) -> str:
    """Returns a table, the learned optimizers in bold."""
    return _table(
        ["", *columns.values()],
        [[_name(name), *(_cell(cells[column]) for column in columns)] for name, (_, cells) in rows.items()],
    )


def losses_table(evaluations: Iterable[EvaluationReport]) -> str:
    """Returns the normalised final losses of all reports, the lowest mean first."""
    rows = {row.name: row for evaluation in evaluations for row in evaluation.losses}
    lines = []
    for row in sorted(rows.values(), key=lambda row: row.train_mean):
        numbers = (row.train_mean, row.train_median, row.test_mean, row.test_median)
        lines.append([_name(row.name), str(row.num_trials), *(f"{number:.3f}" for number in numbers)])
    return _table(LOSSES, lines)


def head_to_head_table(pacer: EvaluationReport, velo: EvaluationReport) -> str:
    """Returns how often each of the two ended lower than each opponent, `pacer`'s strongest first."""
    columns = [
        {_opponent(row.name, report.candidate.label): row for row in report.head_to_head}
        for report in (pacer, velo)
    ]
    lines = []
    for name in columns[0]:
        cells = [str(columns[0][name].num_trials)]
        for row in (column[name] for column in columns):
            cells.append(f"{100 * row.probability:.0f} %")
            cells += [
                "–" if ends is None else f"{100 * ends[0]:.0f}–{100 * ends[1]:.0f}" for ends in _ends(row)
            ]
            cells.append(f"{row.num_won}:{row.num_lost}")
        lines.append([name, *cells])
    each = ("over seeds", "over tasks", "tasks")
    return _table(["against", "trainings", "`pacer` lower", *each, "`velo` lower", *each], lines)


def _ends(row: HeadToHeadRow) -> tuple[tuple[float, float] | None, ...]:
    return row.over_seeds, row.over_tasks


def _opponent(name: str, candidate: str) -> str:
    return "itself before training" if name == untrained_name(candidate) else name


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_line(head), "|---" * len(head) + "|", *map(_line, rows)])


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
        rows.append((not task.familiar, -values[0], [name, "yes" if task.familiar else "no", *cells]))
    return _table(["task", "family drawn", *columns], (cells for _, _, cells in sorted(rows)))


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
        found[f"one-{horizon}"] = markdown(one_setting_each(merged(both, "One training per task")), COLUMNS)
        best = merged(both, "The best of several trainings per task")
        found[f"best-{horizon}"] = markdown(best, TRAININGS | COLUMNS)
        found[f"head-{horizon}"] = head_to_head_table(*both)
        found[f"losses-{horizon}"] = losses_table(both)
        found[f"clock-{horizon}"] = markdown(merged(both, "By the clock"), COLUMNS)
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
            (DOCS / "images" / f"{stem}-head-to-head.png").write_bytes(head_to_head_png(data))
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
