"""Tells a Prefect server about keirin: `python -m flows.servers.deploy` creates the work pool and every deployment.

The deployments are those of `prefect.yaml`: the one in the current folder if there is one, otherwise the one
that comes with the project. Doing it twice changes nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flows.errors import ServiceFailedError

WORK_POOL = "keirin"


def deployment_file() -> Path:
    """Returns the `prefect.yaml` to use.

    Raises:
      ServiceFailedError: If there is none.
    """
    beside_packages = Path(__file__).resolve().parents[2] / "prefect.yaml"
    for candidate in (Path.cwd() / "prefect.yaml", beside_packages):
        if candidate.is_file():
            return candidate
    raise ServiceFailedError(
        f"no prefect.yaml in {Path.cwd()} or {beside_packages.parent}. Run this in the project's folder."
    )


def create_work_pool() -> None:
    """Creates the process work pool `keirin` on the server that PREFECT_API_URL names, unless it exists."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
        except ObjectAlreadyExists:
            return


def main() -> int:
    """Creates the pool, then runs `prefect deploy --all`."""
    file = deployment_file()
    create_work_pool()
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    # `{{ $PWD }}` in prefect.yaml is the folder that the flows will run in.
    return subprocess.call(command, env={**os.environ, "PWD": str(Path.cwd())})


if __name__ == "__main__":
    sys.exit(main())
