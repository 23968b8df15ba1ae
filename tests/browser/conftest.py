"""One `keirin up` on a small workspace, and one Chromium, for all tests of a file."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from running_keirin import MARK, START_SECONDS, STOP_SECONDS, Up, wait_for

from flows.servers.running_services import RunningServices, read_services

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

HOME_VARIABLE = "KEIRIN_BROWSER_HOME"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


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
