"""`keirin status`: phases, checkpoints, aliases, the last evaluation and running servers at a glance."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.servers.running_services import read_services
from flows.settings import RuntimeSettings
from storage.checkpoints import CheckpointStore
from storage.promotion_log import PromotionLog
from storage.registry_reading import read_aliases
from storage.workspace import Workspace


def show_status(settings: RuntimeSettings, console: Console) -> None:
    """Prints what the workspace holds. Reads only, and imports neither JAX nor MLflow nor Prefect."""
    workspace = Workspace(settings.home)
    console.print(f"[bold]{workspace.root}[/bold]", highlight=False)
    if not workspace.root.is_dir():
        console.print("  nothing has been run here. Start with `keirin demo`.", highlight=False)
        return
    record = workspace.read_state()
    _phases(workspace, record, console)
    _aliases(workspace, console)
    _results(record, console)
    _last_decision(workspace, console)
    _services(settings, console)


def _phases(workspace: Workspace, record: dict[str, Any], console: Console) -> None:
    store = CheckpointStore(workspace.checkpoints)
    complete = {phase["run_name"]: phase for phase in record.get("phases", {}).values()}
    names = store.phases()
    if not names:
        console.print("  no checkpoints yet.")
        return
    table = Table(
        "phase run", "state", "checkpoints", "validation loss", title="Phases", title_justify="left"
    )
    for name in names:
        steps = [str(info.outer_step) for info in store.list(name)]
        phase = complete.get(name)
        state = f"complete, version {phase['version']}" if phase else f"at outer step {steps[-1]}"
        table.add_row(name, state, ", ".join(steps), _validation(phase))
    console.print(table)
    _live_pages(workspace, console)


def _live_pages(workspace: Workspace, console: Console) -> None:
    """Names the pages of running phases; if none runs, the newest."""
    pages = sorted(workspace.live_pages.glob("*.html"), key=lambda page: page.stat().st_mtime)
    running = [page for page in pages if (workspace.control / f"{page.stem}.json").exists()]
    for page in running or pages[-1:]:
        what = "running" if page in running else "last"
        console.print(f"  {what}: {page.as_uri()}", highlight=False, soft_wrap=True)


def _validation(phase: dict[str, Any] | None) -> str:
    points = phase["report"]["validation"] if phase else []
    if not points:
        return "–"
    losses = [float(point["meta_loss"]) for point in points]
    return f"{losses[0]:.4f} → {min(losses):.4f}"


def _aliases(workspace: Workspace, console: Console) -> None:
    aliases = read_aliases(workspace)
    listed = ", ".join(f"{alias} = version {version}" for alias, version in sorted(aliases.items()))
    console.print(f"  aliases: {listed or 'none yet'}", highlight=False)


def _results(record: dict[str, Any], console: Console) -> None:
    evaluation = record.get("evaluation")
    if evaluation is None:
        console.print("  no evaluation yet.")
    else:
        report = evaluation["report"]
        console.print(
            f"  last evaluation: {evaluation['optimizer']} on {report['set_name']}, {len(report['tasks'])} tasks, "
            f"{report['horizon']} steps: {evaluation['headline']}",
            highlight=False,
        )
        for remark in report.get("remarks", ()):
            console.print(f"    [red]{escape(remark)}[/red]", highlight=False)


def _last_decision(workspace: Workspace, console: Console) -> None:
    entries = PromotionLog(workspace).entries()
    if entries:
        last = entries[-1]
        to = "to " if last["kind"] == "rolled back" else ""
        console.print(
            f"  last decision of {len(entries)}: {last['kind']} {to}version {last['version']}; `keirin history`",
            highlight=False,
        )


def _services(settings: RuntimeSettings, console: Console) -> None:
    services = read_services(settings.home)
    if services is None:
        console.print("  no servers running; `keirin up` starts them.")
        return
    for name, url in (
        ("Prefect", services.prefect_ui),
        ("MLflow", services.mlflow),
        ("Dask", services.dask_dashboard),
    ):
        console.print(f"  {name}: {url}", highlight=False)
