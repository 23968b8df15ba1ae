"""A command in a process of its own, to be killed while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from flows.settings import RuntimeSettings
from flows.workers.environment import worker_environment
from storage.checkpoints import CheckpointStore


class Command:
    """A running `keirin train`, and every process that it has started so far."""

    def __init__(self, program: str, home: Path, *, workers: int) -> None:
        """Starts `program`, Python that ends in the command line's `main()`."""
        self.log = home / "command.log"
        self._output = self.log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "train", "--home", str(home), "--workers", str(workers)],
            env={**os.environ, **worker_environment(RuntimeSettings(home=home))},
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.children: list[psutil.Process] = []
        self.store = CheckpointStore(home / "checkpoints")

    def steps(self) -> list[int]:
        return [info.outer_step for info in self.store.list()]

    def wait_for_step(self, outer_step: int, timeout: float = 300.0) -> None:
        deadline = time.monotonic() + timeout
        while max(self.steps(), default=-1) < outer_step:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        assert len(self.children) >= 3  # workers, and a Prefect server on its lifeline

    def workers(self) -> list[psutil.Process]:
        return [child for child in self.children if _runs(child, "multiprocessing.spawn")]

    def end(self, number: int | None = None, timeout: float = 300.0) -> int:
        """Sends a signal if one is given; returns the exit code."""
        if number is not None:
            os.kill(self.process.pid, number)
        code = self.process.wait(timeout)
        self._output.close()
        return code

    def left_behind(self, timeout: float = 10.0) -> list[psutil.Process]:
        """Returns the children that are still there after `timeout` seconds."""
        gone_by = time.monotonic() + timeout
        while (alive := [c for c in self.children if is_alive(c)]) and time.monotonic() < gone_by:
            time.sleep(0.1)
        return alive


def _runs(process: psutil.Process, text: str) -> bool:
    try:
        return text in " ".join(process.cmdline())
    except psutil.Error:
        return False


def is_alive(process: psutil.Process) -> bool:
    """Returns whether it runs; one that has ended and is not waited for does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
