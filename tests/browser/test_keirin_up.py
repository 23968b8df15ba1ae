"""`keirin up` as a person meets it: a real Chromium on real servers, from the list of flows to Ctrl-C.

    make test-browser                              # prepares a small workspace first, about a minute
    KEIRIN_BROWSER_HOME=.keirin make test-browser  # borrows the fitted run-time model of a workspace

The tests share one `keirin up` and go in the order of this file; the last one ends it. Every test leaves a
screenshot, also when it fails, in `screenshots0` of pytest's temporary folder (`--basetemp` says where). Pages
may talk to this machine only: they have to work without a network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from flows.parameters import TrainParameters
from flows.servers.deploy import deployment_file
from flows.servers.running_services import RunningServices, read_services

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

pytestmark = pytest.mark.browser

HOME_VARIABLE = "KEIRIN_BROWSER_HOME"
MARK = "KEIRIN_BROWSER_MARK"
"""An environment variable that every process of `keirin up` inherits, wherever it moves to."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_SECONDS, RUN_SECONDS, STOP_SECONDS = 240.0, 600.0, 120.0
"""Generous: a machine that does something else as well is no failure."""


@dataclass(frozen=True)
class Up:
    """A running `keirin up`."""

    process: subprocess.Popen[bytes]
    services: RunningServices
    home: Path
    log: Path
    mark: str

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Asks the Prefect server."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.services.prefect_api}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def processes(self) -> list[psutil.Process]:
        """Returns every living process that was started by this `keirin up`, or by one of those."""
        return [process for process in psutil.process_iter() if _has_mark(process, self.mark)]


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


def wait_for(what: str, condition: Callable[[], Any], *, seconds: float) -> Any:
    """Returns what `condition` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def chromium() -> Path:
    """The browser, or a skip that says what is missing."""
    pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing: `make test-browser` installs it"
    )
    found = os.environ.get("KEIRIN_CHROMIUM") or shutil.which("chromium")
    if found is None or not Path(found).is_file():
        pytest.skip("no chromium: `apt install chromium`, or set KEIRIN_CHROMIUM to a Chromium's path")
    return Path(found)


@pytest.fixture(scope="module")
def home(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a fitted run-time model, and nothing trained yet."""
    home = tmp_path_factory.mktemp("workspace") / "home"
    if prepared := os.environ.get(HOME_VARIABLE):
        _borrow_runtime_model(Path(prepared), home)
        return home
    for step in ("time", "fit"):
        command = [sys.executable, "-m", "flows.cli", step, "--count", "12", "--home", str(home)]
        done = subprocess.run(command, cwd=home.parent, env=_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return home


def _borrow_runtime_model(source: Path, home: Path) -> None:
    """Copies no more than a phase needs: MLflow's database would still point into `source`."""
    record = json.loads((source / "state.json").read_text("utf-8")).get("runtime_model")
    if record is None:
        pytest.fail(
            f"{HOME_VARIABLE}={source} has no run-time model: run `keirin time` and `keirin fit` there"
        )
    for folder in ("runtime_model", "compilation_cache"):
        if (source / folder).is_dir():
            shutil.copytree(source / folder, home / folder)
    (home / "state.json").write_text(json.dumps({"runtime_model": record}), "utf-8")


def _environment(**more: str) -> dict[str, str]:
    """Returns this process's variables without what would choose another workspace or server."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith(("KEIRIN_", "PREFECT_API"))}
    return {**kept, **more}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def up(home: Path) -> Iterator[Up]:
    """`keirin up` on free ports, started somewhere that is no checkout."""
    ports = zip(("--prefect-port", "--mlflow-port", "--dask-port"), map(str, _free_ports(3)), strict=True)
    options = ["--home", str(home), "--workers", "2", *(word for pair in ports for word in pair)]
    log, mark = home.parent / "up.log", uuid.uuid4().hex
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up", *options],
            cwd=home.parent,
            env=_environment(**{MARK: mark}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def ready() -> RunningServices | None:
            assert process.poll() is None, log.read_text("utf-8")
            return read_services(home) if "Ready." in log.read_text("utf-8") else None

        services = wait_for("`keirin up` is ready", ready, seconds=START_SECONDS)
        yield Up(process, services, home, log, mark)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()  # its servers end by themselves: they hang on its lifelines
                process.wait()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def browser(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A fresh profile, so that nothing has been dismissed or remembered."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=chromium,
            headless=True,
            args=FLAGS,
            viewport={"width": 1600, "height": 1100},
        )
        context.set_default_timeout(60_000)
        context.route(re.compile(r"^https?://(?!127\.0\.0\.1[:/])"), lambda route: route.abort())
        yield context
        context.close()


@pytest.fixture
def page(browser: BrowserContext, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new tab, photographed when the test is over."""
    page = browser.new_page()
    # MLflow greets a new profile with dialogs that cover the page.
    greeting = page.get_by_role("button", name=re.compile("^(Try it now|Got it)$"))
    page.add_locator_handler(greeting, lambda button: button.first.click())
    yield page
    page.screenshot(path=screenshots / f"{request.node.name}.png")
    page.close()


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
