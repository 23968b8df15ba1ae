"""Prints evaluations as Markdown, and draws their speed-ups: for docs/embedded24.md and docs/results.md.

    python docs/make_evaluation_page.py --report pacer=one/.keirin/reports/report.json \\
        --report velo=other/.keirin/reports/report.json --pictures embedded24

Each report is the `report.json` that `keirin report` wrote beside its page. Tasks are listed once, with the speed-
up of every candidate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from curriculum.evaluation.summary import INITIALISATION
from flows.reporting import EvaluationReport, ReportData, comparison_png, speedup_cdf_png
from flows.reporting.statistics import task_speedup
from flows.reporting.table_views import TableView, table_views
from flows.reporting.views import headline

LEFT_OUT = ("mean", "mean cost", "5 %", "25 %", "75 %")
"""Columns that the page of `keirin report` has and a narrower one does not."""
IMAGES = Path(__file__).parent / "images"


def table(view: TableView) -> str:
    """Returns a table as Markdown, the rows that it is about in bold."""
    kept = [n for n, name in enumerate(view.head) if name not in LEFT_OUT]
    lines = [_line([view.head[n] for n in kept]), "|---" * len(kept) + "|"]
    for number, row in enumerate(view.rows):
        cells = [row[n] for n in kept]
        lines.append(_line([f"**{cell}**" for cell in cells] if number in view.emphasis else cells))
    return "\n".join([f"**{view.title}.** {view.note}", "", *lines, ""])


def tasks_table(reports: dict[str, EvaluationReport]) -> str:
    """Returns a row per task: the speed-up of each candidate over the first baseline, and of its initialisation."""
    evaluations = list(reports.values())
    lines = [
        _line(["task", *(name for each in reports for name in (each, f"{each} before"))]),
        "|---" * (1 + 2 * len(reports)) + "|",
    ]
    for task in evaluations[0].tasks:
        cells = [task.name]
        for evaluation in evaluations:
            found = next(each for each in evaluation.tasks if each.name == task.name)
            normalizer = evaluation.baselines[0].name
            for optimizer in (evaluation.candidate.name, INITIALISATION):
                summary = task_speedup(evaluation, found, optimizer, normalizer)
                spread = "" if summary is None else f" ({summary.low:.2f}–{summary.high:.2f})"
                cells.append("–" if summary is None else f"{summary.text}{spread}")
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Reads the reports, draws and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="append", required=True, metavar="LABEL=PATH")
    parser.add_argument("--pictures", metavar="NAME", help="draw them too; how the names of the files begin")
    args = parser.parse_args()
    reports: dict[str, EvaluationReport] = {}
    for given in args.report:
        label, _, path = given.partition("=")
        data = ReportData.model_validate_json(Path(path).read_text("utf-8"))
        if data.evaluation is None:
            parser.error(f"{path} has no evaluation. Run `keirin evaluate` and `keirin report` there first.")
        reports[label] = data.evaluation
        print(f"### {label}\n\n{headline(data)}\n")
        print("\n".join(f"- {remark}" for remark in data.evaluation.remarks), "\n")
        print("\n".join(table(view) for view in table_views(data.evaluation)))
        if args.pictures is not None:
            for kind, png in (("cdf", speedup_cdf_png(data)), ("comparison", comparison_png(data))):
                picture = IMAGES / f"{args.pictures}-{label}-{kind}.png"
                picture.write_bytes(png)
                print(f"wrote {picture}")
    print("\n### Tasks\n")
    print(tasks_table(reports))


if __name__ == "__main__":
    main()
