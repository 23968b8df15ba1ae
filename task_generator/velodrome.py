"""VeLOdrome: the fixed tasks that VeLO was evaluated on, as configurations.

The data file has one task per line: its name, the sets it is in, its configuration, and the fingerprint that a test
holds the configuration to. 84 tasks are candidates for the paper's 83, and 110 for its 109: no published source
says which one is not meant. `fast67` is a published list.

[1] Metz et al. 2022 (arXiv:2211.09760), 4.1, F and G.12; google/learned_optimization (Apache-2.0) for sizes.
Deviations: losses are normalised as everywhere here (1 at chance); the sub-word vocabulary of `…_32k` is trained
locally; texts are windows of a stream (`datasets.text`); an optimizer trained as a task is normalised once; the
mixers' and transformers' kernels start as truncated normals.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from task_generator.evaluation_task import EvaluationTask
from task_generator.task_config import parse_task_config

DATA = Path(__file__).with_name("velodrome.json")
VELODROME_SETS = ("velodrome83", "velodrome109", "fast67")


def read_rows() -> list[dict[str, Any]]:
    """Returns the lines of the data file: name, sets, fingerprint, config."""
    return json.loads(DATA.read_text())


def velodrome_sets() -> dict[str, tuple[EvaluationTask, ...]]:
    """Returns the tasks of each of `VELODROME_SETS`."""
    rows = read_rows()
    tasks = {
        row["name"]: EvaluationTask(name=row["name"], config=parse_task_config(row["config"])) for row in rows
    }
    return {name: tuple(tasks[row["name"]] for row in rows if name in row["sets"]) for name in VELODROME_SETS}
