"""The MLflow server of `keirin up`: `python -m flows.servers.mlflow_service --port P`.

The tracking database is made, in one piece, before the server opens it: a server that is killed while it
creates the tables would leave half of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from storage.mlflow_client import migrate_tracking_database
from storage.workspace import Workspace


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepares the database of the workspace that KEIRIN_HOME names, and becomes the server."""
    parser = argparse.ArgumentParser(prog="python -m flows.servers.mlflow_service", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args(arguments).port
    workspace = Workspace()
    migrate_tracking_database(workspace)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    stores = [
        "--backend-store-uri",
        workspace.tracking_uri,
        "--artifacts-destination",
        str(workspace.mlflow_artifacts),
    ]
    os.execv(sys.executable, [*command, *stores])


if __name__ == "__main__":
    main()
