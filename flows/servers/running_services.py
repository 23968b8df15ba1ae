"""What `keirin up` has running, as a small file that other commands look at.

A file can outlive its writer, so it counts only while the process that wrote it is alive.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.files import write_json

SERVICES_FILE = "services.json"


class RunningServices(BaseModel):
    """The addresses of a running `keirin up`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int = Field(description="Process id of the supervisor.")
    started: float = Field(description="When that process was started, so that a reused id is noticed.")
    prefect_ui: str | None = None
    prefect_api: str | None = None
    mlflow: str | None = None
    dask_dashboard: str | None = None
    scheduler: str | None = None


def write_services(home: Path, services: RunningServices) -> None:
    """Stores the addresses, all at once."""
    write_json(home / SERVICES_FILE, services.model_dump())


def read_services(home: Path) -> RunningServices | None:
    """Returns the addresses of a supervisor that is alive, or None."""
    try:
        services = RunningServices.model_validate(json.loads((home / SERVICES_FILE).read_text("utf-8")))
    except (OSError, ValueError, ValidationError):
        return None
    return services if started_at(services.pid) == services.started else None


def remove_services(home: Path) -> None:
    """Forgets the addresses."""
    (home / SERVICES_FILE).unlink(missing_ok=True)


def started_at(pid: int) -> float | None:
    """Returns when the process `pid` was started (epoch seconds), or None if there is no such process."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
