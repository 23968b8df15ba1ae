"""What the workers run on: asked when an evaluation measures, stored with it, shown by its report.

A report is made later, perhaps on another machine, by a process that uses no accelerator: it cannot tell.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from flows.session import Session
from flows.settings import available_cores

PACKAGES = ("keirin", "jax", "optax", "prefect", "distributed", "mlflow")


def workers_facts(session: Session) -> dict[str, Any]:
    """Returns what the workers run on, JSON with the fields of a report's machine; one of them answers for all.

    A local worker is set up as this process is.
    """
    if session.settings.scheduler is None:
        return facts_unit()
    (facts,) = session.pool.run_all(facts_unit, [()])
    return facts


def facts_unit() -> dict[str, Any]:
    """Returns what this worker runs on. Asks JAX for its devices, which initialises it."""
    from runtime_model.machine import this_machine  # imports JAX

    kind, _, device = this_machine().hardware.partition(":")
    return {**host_facts(), "accelerator": None if kind == "cpu" else f"{kind} {device}"}


def host_facts() -> dict[str, Any]:
    """Returns what is known of this machine without asking JAX, which could take an accelerator's memory."""
    return {
        "processor": _processor(),
        "num_cores": available_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": _versions(),
    }


def curve_labels(facts: dict[str, Any]) -> dict[str, str]:
    """Returns what is kept with a curve of a worker: JAX's and optax's versions, and its platform."""
    versions = dict(facts["versions"])
    platform = str(facts["accelerator"] or "cpu").split()[0]
    return {"jax": versions.get("jax", ""), "optax": versions.get("optax", ""), "platform": platform}


def _versions() -> list[list[str]]:
    found = []
    for package in PACKAGES:
        try:
            found.append([package, importlib.metadata.version(package)])
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
