"""Step 1: draw task configurations. The i-th depends on the seed and i only, and takes microseconds."""

from __future__ import annotations

from collections import Counter
from typing import Any

from prefect import flow

from flows.artifacts import ArtifactSpec
from flows.parameters import SampleParameters
from flows.prefect_artifacts import publish_table
from flows.record import remember
from flows.session import Session, current_session
from task_generator.known_distributions import get_distribution
from task_generator.sampling import TaskDistribution, sample_task_configs
from task_generator.task_config import TaskConfig

VERSION = 2


FIRST_STREAM = 1
"""Seed 0 draws stream 1: stream 0 is that of the timings that keirin ships (`runtime_model.reference`), so that no
configuration that is timed here is one that the shipped run-time model was fitted to."""


def draw(parameters: SampleParameters) -> list[TaskConfig]:
    """Returns the configurations."""
    return draw_from(get_distribution(parameters.distribution), parameters)


def draw_from(distribution: TaskDistribution, parameters: SampleParameters) -> list[TaskConfig]:
    """Returns as many configurations of `distribution` as the parameters say."""
    return sample_task_configs(distribution, FIRST_STREAM + parameters.seed, parameters.count)


def sample_spec(parameters: SampleParameters) -> ArtifactSpec:
    """Returns the identity of a sample."""
    return ArtifactSpec(
        "sample",
        VERSION,
        {
            "distribution": get_distribution(parameters.distribution).model_dump(mode="json"),
            "count": parameters.count,
            "seed": parameters.seed,
        },
    )


def rows(configs: list[TaskConfig]) -> list[dict[str, Any]]:
    """Returns one row per configuration, for people."""
    return [
        {"#": number, "task": config.label, "fingerprint": config.fingerprint(), **_cost(config)}
        for number, config in enumerate(configs)
    ]


def run_sample(parameters: SampleParameters, session: Session) -> list[TaskConfig]:
    """Draws the configurations and stores them."""
    configs = draw(parameters)
    spec = sample_spec(parameters)
    if session.artifacts.read(spec) is None:
        session.artifacts.write(spec, {"configs": [config.model_dump(mode="json") for config in configs]})
    remember(session.workspace, "sample", {"fingerprint": spec.fingerprint, **spec.config})
    families = Counter(config.family.family for config in configs)
    listed = ", ".join(f"{count} {family}" for family, count in sorted(families.items()))
    session.reporter.line(f"{len(configs)} task configurations from '{parameters.distribution}': {listed}")
    return configs


@flow(name="sample", flow_run_name="{parameters.distribution}-{parameters.count}", validate_parameters=True)
def sample_tasks(parameters: SampleParameters = SampleParameters()) -> list[str]:
    """Draws task configurations from a distribution. The same parameters always give the same ones."""
    with current_session() as session:
        session.reporter.heading("sample")
        configs = run_sample(parameters, session)
        publish_table("sampled-tasks", rows(configs)[:500], "Task configurations, cheapest facts first.")
        return [config.fingerprint() for config in configs]


def _cost(config: TaskConfig) -> dict[str, Any]:
    cost = config.approximate_cost()
    return {"parameters": int(cost["num_params"]), "MFLOP per step": round(cost["flops_per_step"] / 1e6, 3)}
