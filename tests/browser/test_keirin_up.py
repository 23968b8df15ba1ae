"""`keirin up` as a person meets it: a real Chromium on real servers, from the list of flows to Ctrl-C.

    make test-browser                              # prepares a small workspace first, about a minute
    KEIRIN_BROWSER_HOME=.keirin make test-browser  # borrows the fitted run-time model of a workspace

The tests share one `keirin up` and go in the order of this file; the last one ends it. Every test leaves a
screenshot, also when it fails, in `screenshots0` of pytest's temporary folder (`--basetemp` says where). Pages
may talk to this machine only: they have to work without a network.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml
from running_keirin import RUN_SECONDS, STOP_SECONDS, Up, wait_for

from flows.parameters import TrainParameters
from flows.servers.deploy import deployment_file
from flows.servers.running_services import read_services

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

pytestmark = pytest.mark.browser


def open_train_form(page: Page, up: Up) -> Locator:
    """Clicks from Prefect's first page to the form of the train step. Returns the form."""
    page.goto(str(up.services.prefect_ui))
    page.get_by_role("link", name="Deployments", exact=True).click()
    page.get_by_role("link", name="train", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    form = page.locator("main")
    form.get_by_text("Outer Steps (Optional)").wait_for()
    return form


def fill_outer_steps(form: Locator, value: int) -> Locator:
    """Changes the field from None to a number. Returns the input."""
    label = form.get_by_text("Outer Steps (Optional)")
    field = label.locator('xpath=ancestor::div[.//*[@role="tab"]][1]')
    field.get_by_role("tab", name="int").click()
    number = field.get_by_role("spinbutton")
    number.fill(str(value))
    return number


def test_every_flow_has_a_deployment(page: Page, up: Up) -> None:
    page.goto(str(up.services.prefect_ui))
    page.get_by_role("link", name="Deployments", exact=True).click()
    names = [d["name"] for d in yaml.safe_load(deployment_file().read_text("utf-8"))["deployments"]]
    page.get_by_text(f"{len(names)} Deployments").wait_for()
    for name in names:
        page.get_by_role("link", name=name, exact=True).first.wait_for()
    flows = {flow["name"] for flow in up.api("/flows/filter", {})}
    assert flows >= set(names)
    # Until the worker has asked for work once, seconds after `keirin up` says so, they are "Not Ready".
    page.get_by_text("Ready", exact=True).nth(len(names) - 1).wait_for()


def test_the_form_explains_every_parameter(page: Page, up: Up) -> None:
    form = open_train_form(page, up)
    form.get_by_text(str(TrainParameters.__doc__)).wait_for()
    for name, field in TrainParameters.model_fields.items():
        form.get_by_text(f"{name.replace('_', ' ').title()} (Optional)").wait_for()
        form.get_by_text(str(field.description)).wait_for()


def test_the_form_refuses_what_cannot_be(page: Page, up: Up) -> None:
    form = open_train_form(page, up)
    before = up.api("/flow_runs/count", {})
    number = fill_outer_steps(form, 0)
    form.get_by_role("button", name="Submit").click()
    page.wait_for_timeout(1_000)
    assert number.evaluate("input => input.validity.rangeUnderflow")
    assert page.url.partition("?")[0].endswith("/run")  # still the form
    assert up.api("/flow_runs/count", {}) == before


@pytest.fixture(scope="module")
def trained(up: Up, browser: BrowserContext, screenshots: Path) -> dict[str, Any]:
    """A run of the train step, started by clicks with one parameter changed, when it has ended."""
    page = browser.new_page()
    form = open_train_form(page, up)
    fill_outer_steps(form, 2)
    page.screenshot(path=screenshots / "form_filled_in.png")
    form.get_by_role("button", name="Submit").click()
    page.get_by_role("link", name="View run").click()
    page.wait_for_url("**/flow-run/**")
    found = re.search(r"flow-run/([0-9a-f-]{36})", page.url)
    assert found is not None, page.url
    page.close()
    return _when_ended(up, found[1])


def _when_ended(up: Up, identifier: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        run: dict[str, Any] = up.api(f"/flow_runs/{identifier}")
        return run if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    result: dict[str, Any] = wait_for("the run has ended", ended, seconds=RUN_SECONDS)
    return result


def open_run(page: Page, up: Up, run: dict[str, Any]) -> None:
    """Clicks from Prefect's first page to that of a run."""
    page.goto(str(up.services.prefect_ui))
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("link", name=run["name"], exact=True).first.click()
    page.get_by_role("tab", name="Artifacts").wait_for()


def test_a_run_started_by_clicks_completes(page: Page, up: Up, trained: dict[str, Any]) -> None:
    assert trained["state"]["type"] == "COMPLETED", trained["state"]
    assert trained["name"] == "demo-next"
    defaults = TrainParameters().model_dump(mode="json")
    assert trained["parameters"] == {"parameters": {**defaults, "outer_steps": 2}}
    open_run(page, up, trained)
    page.locator("main").get_by_text("Completed", exact=True).first.wait_for()


ARTIFACTS = {
    "meta-training-curve": None,
    "phase-progress": "100%",
    "phase-summary": "2 outer steps",
    "phase-tasks": "batch",
    "validations": "initial_meta_loss",
}


@pytest.mark.parametrize("key", sorted(ARTIFACTS))
def test_a_run_shows_its_artifacts(page: Page, up: Up, trained: dict[str, Any], key: str) -> None:
    open_run(page, up, trained)
    page.get_by_role("tab", name="Artifacts").click()
    main = page.locator("main")
    main.get_by_role("link").filter(has_text=key).click()
    main.locator('a[href*="/artifacts/artifact/"]').first.click()
    content = page.get_by_role("tabpanel")
    if (text := ARTIFACTS[key]) is not None:
        content.get_by_text(text).first.wait_for()
    else:
        picture = content.locator('img[src^="data:image/png"]').first
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 300


def open_experiment(page: Page, up: Up) -> None:
    """Clicks from MLflow's first page, which is about something else, to keirin's runs."""
    page.goto(str(up.services.mlflow))
    page.get_by_text("Model training", exact=True).first.click()
    page.get_by_role("link", name="keirin", exact=True).first.click()


def test_mlflow_shows_the_run_with_its_metrics(
    page: Page, up: Up, trained: dict[str, Any], screenshots: Path
) -> None:
    open_experiment(page, up)
    page.get_by_role("link", name="short_horizon", exact=True).first.click()
    for text in ("meta_loss", "validation_loss", "inner_steps", "estimator.sigma", "Finished"):
        page.get_by_text(text, exact=True).first.wait_for()
    page.screenshot(path=screenshots / "mlflow_run.png")
    page.get_by_role("tab", name="Model metrics").click()
    page.locator(".js-plotly-plot").first.wait_for()
    assert page.get_by_text("meta_loss", exact=True).first.is_visible()


def test_mlflow_shows_the_model_with_its_aliases(page: Page, up: Up, trained: dict[str, Any]) -> None:
    open_experiment(page, up)
    page.get_by_role("link", name="Model registry").click()
    page.locator('a[href$="#/models/keirin"]').click()
    page.get_by_role("link", name="Version 1").wait_for()
    for alias in ("candidate", "short_horizon"):
        page.get_by_text(re.compile(rf"^@\s*{alias}$")).first.wait_for()


def test_ctrl_c_stores_what_runs_and_leaves_no_process(up: Up, trained: dict[str, Any]) -> None:
    deployment = trained["deployment_id"]
    # The tasks of the run before, so they are compiled; long enough to be interrupted.
    parameters = {"parameters": {"phase": "short_horizon", "outer_steps": 5_000}}
    run = up.api(f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]
    query = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["phase-progress"]}}}
    wait_for(
        "the run has done an outer step",
        lambda: any(float(bar["data"]) > 0 for bar in up.api("/artifacts/filter", query)),
        seconds=RUN_SECONDS,
    )
    folder = up.home / "checkpoints"
    before = set(folder.glob("*/step-*/manifest.json"))
    # Whatever hangs below `keirin up` is found by its mark, so what has left the tree is found as well.
    assert set(up.processes()) >= set(psutil.Process(up.process.pid).children(recursive=True))

    os.killpg(up.process.pid, signal.SIGINT)
    assert up.process.wait(STOP_SECONDS) == 0, up.log.read_text("utf-8")
    assert up.processes() == []

    output = up.log.read_text("utf-8")
    assert "cancelled 1 running flows; their checkpoints are stored" in output
    assert "everything is stopped" in output
    assert read_services(up.home) is None
    with sqlite3.connect(up.home / "prefect" / "prefect.db") as database:
        (state,) = database.execute("SELECT state_type FROM flow_run WHERE id = ?", (run,)).fetchone()
    database.close()
    assert state == "CANCELLED"
    assert set(folder.glob("*/step-*/manifest.json")) - before
