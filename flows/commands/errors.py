"""From an exception to one line on standard error and an exit code.

0: done. 1: it failed. 2: it was asked for something that does not exist or is not possible. 130: Ctrl-C.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable
from types import TracebackType

from rich.console import Console

from flows.errors import OrchestrationError, PortTakenError, StepIncompleteError

PACKAGES = frozenset({"lopt", "task_generator", "runtime_model", "curriculum", "storage", "flows"})
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
OPTIONS = {
    "baselines": "budget",
    "evaluation_sets": "evaluation_set",
    "num_workers": "workers",
    "others": "with",
}
"""Fields whose option is called otherwise."""
ARGUMENTS = {"optimizer", "probe", "run"}
"""Fields that are given by their place."""
EXPECTED = (ValueError, LookupError, OSError, OrchestrationError)


def guarded(command: Callable[[], object], *, debug: bool) -> int:
    """Runs a command and returns the exit code; an error becomes one line unless `debug` is set."""
    console = Console(stderr=True, soft_wrap=True)
    try:
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc(file=sys.stderr)
        else:
            console.print(f"Error: {message(error)}", style="bold red", markup=False, highlight=False)
        return exit_code(error)
    return 0


def message(error: Exception) -> str:
    """Returns what to tell the user: the error's own words if it is one of ours, else that it is a bug."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False)
        # A list with a wrong item also counts as too short: the item is what to talk about.
        parents = {problem["loc"][:-1] for problem in problems if len(problem["loc"]) > 1}
        return "; ".join(_describe(problem) for problem in problems if problem["loc"] not in parents)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS and not is_ours(error):
        where = f": `{error.filename}`" if error.filename else ""
        return f"{error.strerror}{where}. Free some space, or point KEIRIN_HOME elsewhere."
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if is_ours(error):
        return text
    return f"unexpected {type(error).__name__}: {text.strip()} (`--debug` shows where it came from)"


def exit_code(error: Exception) -> int:
    """Returns 2 for a request that cannot be met as it was made, otherwise 1."""
    from pydantic import ValidationError

    if isinstance(error, StepIncompleteError):
        return 1
    is_request = isinstance(error, ValidationError | PortTakenError | LookupError)
    return 2 if is_request and is_ours(error) else 1


def is_ours(error: Exception) -> bool:
    """Whether one of our packages raised `error` on purpose: its class is ours, or the place it is raised at."""
    from pydantic import ValidationError

    if type(error).__module__.split(".")[0] in PACKAGES or isinstance(error, ValidationError):
        return True
    return isinstance(error, EXPECTED) and _raised_in(error.__traceback__) in PACKAGES


def _raised_in(trace: TracebackType | None) -> str:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0]


def _describe(problem: object) -> str:
    assert isinstance(problem, dict)
    names = [str(part) for part in problem["loc"] if not isinstance(part, int)]
    where = ".".join(OPTIONS.get(name, name) for name in names).replace("_", "-")
    where = where if where in ARGUMENTS else f"--{where}"
    if problem["type"] == "value_error":  # ours: it names what it got
        return f"{where}: {problem['ctx']['error']}"
    return f"{where}: {problem['msg']}, got {problem['input']!r}"
