"""A process of its own that measures configurations, so that one that takes it down is a result like any other.

The owner sends one line of JSON per configuration and gets one back. Meanwhile it watches: a measurement that
needs too long, or a process that grows beyond its memory, is ended from outside, which works in the middle of a
compilation too; what it was doing is the recorded reason. When the owner dies the process reads the end of its
input, and ends.

    python -m flows.run_times.process  reads {"config": …, "settings": …}, writes {"stage": …}, then {"timing": …}

Before the optimizer's update is timed it writes {"gradient": …}, the timing without it: that stands if the update
takes the process down.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

import psutil

from task_generator.datasets.prepared import DatasetNotPreparedError

POLL_SECONDS = 0.2
MAX_CONFIGS = 50
"""Configurations per process: a compiler keeps memory that no call gives back."""
START_SECONDS = 120.0
DATA_ERRORS: dict[str, type[Exception]] = {DatasetNotPreparedError.__name__: DatasetNotPreparedError}
COMMAND = (sys.executable, "-m", "flows.run_times.process")


class TimingProcess:
    """Measures one configuration after the other in a process that may die.

    Args:
      max_seconds: What one configuration may take, compilation included.
      max_process_bytes: What the process may grow to.
      command: What starts it.
    """

    def __init__(
        self, *, max_seconds: float, max_process_bytes: int, command: Sequence[str] = COMMAND
    ) -> None:
        self.max_seconds, self.max_process_bytes, self._command = max_seconds, max_process_bytes, command
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None
        self._num_configs = 0
        atexit.register(self.close)

    @property
    def stdin(self) -> IO[str] | None:
        """Where it reads from; its end is the process's."""
        return None if self._process is None else self._process.stdin

    @property
    def pid(self) -> int:
        """Of the running process; −1 while there is none."""
        return -1 if self._process is None else self._process.pid

    def measure(self, config_json: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Returns the timing's record, or {"reason": …} where the process did not live to measure a gradient step.

        Raises:
          DatasetNotPreparedError: If the configuration's data set is not on this machine.
          RuntimeError: If the process cannot be started.
        """
        process = self._started()
        self._num_configs += 1
        with contextlib.suppress(OSError):  # its end is noticed below
            assert process.stdin is not None
            process.stdin.write(json.dumps({"config": config_json, "settings": settings}) + "\n")
            process.stdin.flush()
        return self._wait(process)

    def close(self) -> None:
        """Ends the process; may be called twice, and `measure` starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):  # what was written when it died is still to be flushed
            assert process.stdin is not None
            process.stdin.close()
        if self._reader is not None:
            self._reader.join()

    def _started(self) -> subprocess.Popen[str]:
        if self._num_configs >= MAX_CONFIGS or (
            self._process is not None and self._process.poll() is not None
        ):
            self.close()
        return self._start() if self._process is None else self._process

    def _start(self) -> subprocess.Popen[str]:
        self._replies, self._num_configs = queue.SimpleQueue(), 0
        self._process = process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",  # what is no text is no reply either
        )
        assert process.stdout is not None
        arguments = process.stdout, self._replies
        self._reader = threading.Thread(target=_read, args=arguments, daemon=True)
        self._reader.start()
        first = self._next(START_SECONDS)
        if first is None or not first.get("ready"):
            self.close()
            fault = f"is not ready after {START_SECONDS:g} s" if first == {} else "does not start"
            raise RuntimeError(
                f"the measuring process {fault}. Try `python -m flows.run_times.process`, and see why: "
                'it writes {"ready": true} first.'
            )
        return process

    def _next(self, seconds: float) -> dict[str, Any] | None:
        """Returns the next reply; nothing in it if none came in time, None if no more will come."""
        try:
            return self._replies.get(timeout=seconds)
        except queue.Empty:
            return {}

    def _wait(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        started, stage = time.monotonic(), "reading the data"
        gradient: dict[str, Any] | None = None
        while True:
            reply, ended = self._next(POLL_SECONDS), None
            if reply is None:
                ended = f"killed: its process ended {_how(process.wait())}"
            elif "unreadable" in reply:
                ended = f"killed: its process wrote what is no reply, {reply['unreadable']!r},"
            elif "timing" in reply:
                return dict(reply["timing"])
            elif "error" in reply:
                raise DATA_ERRORS[reply["error"]](reply["message"])
            else:
                stage, gradient = reply.get("stage", stage), reply.get("gradient", gradient)
                ended = self._beyond_limits(process, time.monotonic() - started)
            if ended is not None:
                self.close()
                return _without_its_end(gradient, f"{ended} while {stage}")

    def _beyond_limits(self, process: subprocess.Popen[str], seconds: float) -> str | None:
        if seconds > self.max_seconds:
            return f"time limit: not done after {self.max_seconds:g} s"
        with contextlib.suppress(psutil.Error):
            used = psutil.Process(process.pid).memory_info().rss
            if used > self.max_process_bytes:
                limit = self.max_process_bytes / 2**20
                return f"out of memory: {used / 2**20:.0f} MiB, more than {limit:.0f} MiB"
        return None


def _without_its_end(gradient: dict[str, Any] | None, reason: str) -> dict[str, Any]:
    """Returns what is left of a measurement: the gradient step's, where only the update's is missing."""
    return {"reason": reason} if gradient is None else {**gradient, "update_reason": reason}


def _how(code: int) -> str:
    if code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _read(stream: IO[str], replies: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Hands on every reply; None when there are no more. A line that is none is the last that is read."""
    with stream:
        for line in stream:
            if not line.endswith("\n"):  # cut short by the process's end
                break
            reply = _parsed(line)
            replies.put(reply)
            if "unreadable" in reply:
                return
    replies.put(None)


def _parsed(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        reply = json.loads(line)
        if isinstance(reply, dict):
            return reply
    return {"unreadable": line.strip()[:80]}


def main() -> None:
    """Measures what standard input asks for, until it ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed must not get between the replies

    def reply(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    from flows.workers.memory import release_memory  # imports JAX
    from runtime_model.timing import TimingSettings, time_step
    from task_generator.task_config import TaskConfig

    reply({"ready": True})
    for line in _until_the_owner_ends():
        request = json.loads(line)
        config = TaskConfig.model_validate_json(request["config"])
        settings = TimingSettings.model_validate(request["settings"])
        try:
            timing = time_step(
                config,
                settings,
                on_stage=lambda stage: reply({"stage": stage}),
                on_gradient=lambda timing: reply({"gradient": timing.model_dump(mode="json")}),
            )
        except tuple(DATA_ERRORS.values()) as error:
            reply({"error": type(error).__name__, "message": str(error)})
            continue
        finally:
            release_memory()
        reply({"timing": timing.model_dump(mode="json")})


def _until_the_owner_ends() -> Any:
    """Yields lines of standard input; ends the process at once when it ends, whatever is being compiled."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def watch() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    while True:
        yield lines.get()


if __name__ == "__main__":
    main()
