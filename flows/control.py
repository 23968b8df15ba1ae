"""Changing a phase while it runs, from Prefect's pages; `keirin control` does the same without a server."""

from __future__ import annotations

from typing import Any

from prefect import flow

from curriculum.control import Control
from flows.parameters import ControlParameters
from flows.settings import settings_for_this_machine
from flows.training.control_records import change_control
from storage.workspace import Workspace


@flow(name="control", flow_run_name="{parameters.command}-{parameters.run}")
def control(parameters: ControlParameters = ControlParameters()) -> dict[str, Any]:
    """Changes numbers of a running phase, pauses it, lets it go on, or stops it after a checkpoint."""
    wish = Control.model_validate(parameters.model_dump(exclude={"run"}))
    workspace = Workspace(settings_for_this_machine().home)
    name, record = change_control(workspace, parameters.run, wish)
    return {"run": name, **record.model_dump(mode="json")}
