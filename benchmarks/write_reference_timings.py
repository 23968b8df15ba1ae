"""Writes the timings of a workspace into the package, where they become the reference machine's.

    python benchmarks/write_reference_timings.py WORKSPACE

Only the latest timing of each configuration on the machine that was measured last is written, and of those not the
ones whose runs were so short that dispatching them counts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runtime_model.reference import FILE, pack
from runtime_model.timing import StepTiming
from storage.timings import TimingStore
from storage.workspace import Workspace

PACKAGE = Path(__file__).parents[1] / "runtime_model"


SHORTEST_RUN = 0.008
"""Seconds."""


def _is_short(timing: StepTiming) -> bool:
    return timing.valid and timing.num_steps * (timing.seconds_per_step or 0.0) < SHORTEST_RUN


def main() -> None:
    """Writes the file and says how large it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workspace", type=Path)
    workspace = Workspace(parser.parse_args().workspace)
    timings = [StepTiming.model_validate(record) for record in TimingStore(workspace.timings).read()]
    machine = next(timing.machine for timing in reversed(timings) if timing.machine is not None)
    latest = {t.config_fingerprint: t for t in timings if t.machine == machine}
    kept = [timing for timing in latest.values() if not _is_short(timing)]
    ordered = sorted(kept, key=lambda timing: (timing.family, timing.config_fingerprint))
    data = pack(ordered, machine)
    (PACKAGE / FILE).write_bytes(data)
    families = {timing.family for timing in ordered}
    print(
        f"{len(ordered)} timings of {len(families)} families on {machine.hardware}: {len(data) / 1024:.0f} KiB"
    )


if __name__ == "__main__":
    main()
