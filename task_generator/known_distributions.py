"""The task distributions that phases and the command line name."""

from __future__ import annotations

from lopt.registry import lookup
from task_generator.sampling import TaskDistribution

DEMO = TaskDistribution(
    name="demo",
    families=(("mlp", 0.5), ("conv", 0.5)),
    datasets=("digits", "photo_patches"),
    augmentations=("reparametrize",),
)
"""The full ranges of VeLO's C.3.1 and C.3.2 on embedded data; a time budget narrows them later."""

DISTRIBUTIONS: dict[str, TaskDistribution] = {d.name: d for d in (DEMO,)}


def get_distribution(name: str) -> TaskDistribution:
    """Returns the distribution called `name`.

    Raises:
      UnknownNameError: If there is none; says which there are, and the nearest.
    """
    return lookup(DISTRIBUTIONS, name, kind="task distribution")
