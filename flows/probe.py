"""Probing a learned optimizer: each probe leaves a picture, its numbers, and a page on how to read them."""

from __future__ import annotations

import re
from pathlib import Path

from prefect import flow

from curriculum.probes import PROBES, Bench, ProbeResult, Subject
from flows.parameters import ALL_PROBES, ProbeParameters
from flows.prefect_artifacts import publish_image, publish_markdown
from flows.probe_subject import resolve_subject, subject_fingerprint
from flows.reporting.probe_plots import probe_png
from flows.session import Session, current_session
from lopt.config import derive
from lopt.use.shipped import PREFIX, shipped_names
from storage.errors import explain_os_errors
from storage.files import write_file

FOLDER = "probes"
"""Of the workspace's reports."""


def run_probes(parameters: ProbeParameters, session: Session) -> list[Path]:
    """Runs a probe, or all that fit. Returns the pictures.

    Raises:
      ProbeRefusedError: If the one probe that was asked for does not fit the optimizer.
    """
    subject = resolve_subject(parameters.optimizer, session)
    names = list(PROBES) if parameters.probe == ALL_PROBES else [str(parameters.probe)]
    pictures = []
    for name in names:
        probe = PROBES[name].quick() if parameters.quick else PROBES[name]()
        probe = derive(probe, seed=parameters.seed)
        reason = probe.refuses(subject)
        if reason is not None and len(names) > 1:
            session.reporter.line(f"{name}: left out, {reason}")
            continue
        result = probe.run(subject, Bench(others=_others(parameters, session)))
        pictures.append(_keep(result, subject, parameters, session))
        session.release_memory()
    return pictures


def _others(parameters: ProbeParameters, session: Session) -> tuple[Subject, ...]:
    """Returns the optimizers beside the subject: those named, or all that come with the package."""
    named = parameters.others or tuple(PREFIX + name for name in shipped_names())
    return tuple(resolve_subject(ref, session) for ref in named if ref != parameters.optimizer)


def _keep(result: ProbeResult, subject: Subject, parameters: ProbeParameters, session: Session) -> Path:
    """Writes picture, numbers and page; records them; says where they are. Returns the picture."""
    stem = "-".join(
        [result.probe, re.sub(r"[^a-z0-9]+", "-", parameters.optimizer.lower()).strip("-")]
        + ["quick"] * parameters.quick
    )
    folder = session.workspace.reports / FOLDER
    picture, page, numbers = (folder / f"{stem}.{ending}" for ending in ("png", "md", "json"))
    png, text = probe_png(result), probe_page(result, picture.name)
    with explain_os_errors(folder, "write a probe's result"):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(picture, png, durable=False)
        write_file(page, text.encode(), durable=False)
        write_file(numbers, result.model_dump_json(indent=1).encode(), durable=False)
    _record(result, (picture, page, numbers), subject, parameters, session)
    for finding in result.findings:
        session.reporter.line(f"{finding}")
    for path in (picture, page):
        session.reporter.line(str(path), whole=True)
    key = f"probe-{result.probe.replace('_', '-')}"
    publish_image(key, png, f"{result.title} of {result.subject}.")
    publish_markdown(f"{key}-page", text)
    return picture


def _record(
    result: ProbeResult,
    files: tuple[Path, ...],
    subject: Subject,
    parameters: ProbeParameters,
    session: Session,
) -> None:
    params = {
        "optimizer": parameters.optimizer,
        "fingerprint": subject_fingerprint(subject),
        "quick": parameters.quick,
        "seed": parameters.seed,
        "n": result.n,
    }
    tags = {"keirin.step": "probe", "keirin.probe": result.probe}
    run = session.tracker.start_run(f"probe {result.probe}", tags=tags, params=params)
    for file in files:
        run.log_artifact(file, FOLDER)
    run.end()


def probe_page(result: ProbeResult, picture: str) -> str:
    """Returns a probe's page as Markdown: question, picture, findings, how to read it, where it comes from."""
    findings = "\n".join(f"- {finding}" for finding in result.findings)
    return (
        f"# {result.title} · {result.subject}\n\n{result.question}\n\n![{result.title}]({picture})\n\n"
        f"{findings}\n\n**How to read it.** {result.how_to_read}\n\n"
        f"n = {result.n:,} {result.counted}. After {result.source}. Deviations: {result.deviations}\n"
    )


@flow(name="probe", flow_run_name="{parameters.probe}")
def probe(parameters: ProbeParameters = ProbeParameters()) -> list[str]:
    """Shows how a learned optimizer behaves: one probe, or all that fit it. Returns the pictures' paths."""
    with current_session() as session:
        session.reporter.heading(f"probe {parameters.probe}")
        return [str(path) for path in run_probes(parameters, session)]
