"""Choices about *where* things run, never about *what* is computed.

No value in here may enter a fingerprint: one worker or eight, this machine or a cluster, the results are the
same. Every field can be set by an environment variable `KEIRIN_<FIELD>`, and the first four by an option of the
command line, which wins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from flows.servers.running_services import read_services

ENVIRONMENT_PREFIX = "KEIRIN_"


def available_cores() -> int:
    """Returns how many cores this process may use (which in a container is often fewer than exist)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class RuntimeSettings(BaseModel):
    """Addresses, resources and paths."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    home: Path = Field(
        default=Path(".keirin"), description="Folder of the workspace: checkpoints, curves, databases, logs."
    )
    scheduler: str | None = Field(
        default=None,
        description="Address of a running Dask scheduler: tcp://HOST:PORT. None starts local workers.",
    )
    num_workers: int = Field(
        default_factory=available_cores, ge=1, le=1024, description="Local Dask workers: one per core."
    )
    threads_per_worker: int = Field(
        default=1, ge=1, le=256, description="Cores that XLA may use inside one worker."
    )
    memory_limit: str = Field(
        default="4GiB",
        pattern=r"^\d+(\.\d+)? ?(MiB|GiB|MB|GB)$",
        description="Memory of one local worker, beyond which Dask restarts it.",
    )
    platform: str = Field(
        default="cpu", description="JAX platform of the local workers: cpu, cuda, … ('' lets JAX choose)."
    )
    niceness: int = Field(
        default=0, ge=0, le=19, description="By how much the local workers give way to other processes."
    )
    connect_timeout: float = Field(
        default=8.0, gt=0, description="Seconds within which a Dask scheduler must answer."
    )

    @field_validator("scheduler")
    @classmethod
    def _check_scheduler(cls, address: str | None) -> str | None:
        if address is not None and "://" not in address:
            raise ValueError(
                f"`scheduler` must look like tcp://HOST:PORT, got {address!r}. Try 'tcp://{address}'."
            )
        return address

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, **overrides: Any
    ) -> RuntimeSettings:
        """Returns the settings that `KEIRIN_*` variables and then `overrides` ask for.

        Args:
          environment: The variables; the process's own when None.
          **overrides: Fields from the command line. None means "not given".
        """
        variables = os.environ if environment is None else environment
        values: dict[str, Any] = {
            name: variables[ENVIRONMENT_PREFIX + name.upper()]
            for name in cls.model_fields
            if variables.get(ENVIRONMENT_PREFIX + name.upper())
        }
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls.model_validate(values)

    def as_environment(self) -> dict[str, str]:
        """Returns the `KEIRIN_*` variables that make another process choose these settings."""
        return {
            ENVIRONMENT_PREFIX + name.upper(): str(value)
            for name, value in self.model_dump(mode="json").items()
            if value is not None
        }


def settings_for_this_machine(**overrides: Any) -> RuntimeSettings:
    """Returns the settings of the environment and `overrides`, on the workers of a running `keirin up`."""
    settings = RuntimeSettings.from_environment(**overrides)
    settings = settings.model_copy(update={"home": Path(os.path.abspath(settings.home))})
    if settings.scheduler is None and (services := read_services(settings.home)) is not None:
        settings = settings.model_copy(update={"scheduler": services.scheduler})
    return settings
