"""Step 7: the report, as a page that needs no network, pictures, and a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prefect import flow

from flows.parameters import ReportParameters
from flows.prefect_artifacts import publish_image, publish_markdown, publish_table
from flows.report_data import collect
from flows.reporting import (
    Picture,
    ReportData,
    headline,
    render_html,
    report_pictures,
    result_lines,
    summary_lines,
    task_rows,
    terminal_table,
)
from flows.session import Session, current_session
from storage.errors import explain_os_errors

PAGE, DATA = "report.html", "report.json"


class WrittenReport(NamedTuple):
    """A report that lies in its folder: where its page is, and what it shows."""

    page: Path
    data: ReportData
    pictures: list[Picture]


def run_report(parameters: ReportParameters, session: Session) -> WrittenReport:
    """Writes the page, its data and its pictures, and prints the table."""
    data = collect(session.workspace, title=parameters.title, command="keirin report")
    folder = session.workspace.reports
    page, pictures = folder / PAGE, report_pictures(data)
    with explain_os_errors(page, "write the report"):
        page.write_text(render_html(data), "utf-8")
        (folder / DATA).write_text(data.model_dump_json(indent=1), "utf-8")
        for picture in pictures:
            (folder / f"{picture.name}.png").write_bytes(picture.png)
    if data.evaluation is not None:
        session.reporter.show(terminal_table(data))
    for line in result_lines(data):
        session.reporter.line(line)
    for line in summary_lines(data):
        session.reporter.line(line, whole=True)
    return WrittenReport(page, data, pictures)


def publish(data: ReportData, pictures: Sequence[Picture]) -> None:
    """Shows the result on the flow run's page."""
    lines = [f"**{headline(data)}**", *result_lines(data)[1:], *summary_lines(data)]
    publish_markdown("result", "\n\n".join(lines))
    if data.evaluation is not None:
        publish_table("evaluation", task_rows(data), "Every task, with the speed-up over each baseline.")
    for picture in pictures:
        publish_image(picture.name, picture.png, picture.caption)


@flow(name="report")
def report(parameters: ReportParameters = ReportParameters()) -> str:
    """Writes the report of everything that has been run in this workspace."""
    with current_session() as session:
        session.reporter.heading("report")
        written = run_report(parameters, session)
        publish(written.data, written.pictures)
        return str(written.page)
