"""Writes docs/probes.md from the registry: `python docs/make_probes_page.py`."""

from __future__ import annotations

from pathlib import Path

from curriculum.probes import PROBES

HEAD = """# Probes

A probe is a small experiment that shows one thing about a learned optimizer: one command, one picture, one
paragraph on how to read it. Each is sized for a minute or a few on two cores, on data that come with the packages.

    keirin probe list
    keirin probe horizon_adaptation                     # of the weights that come with the package, shipped:pacer
    keirin probe horizon_adaptation champion            # an alias, models:/NAME/VERSION, or a checkpoint's folder
    keirin probe step_sizes initial:velo                # an architecture before any meta-training
    keirin probe ensembles champion --with shipped:velo --with candidate
    keirin probe all champion                           # every probe that fits
    keirin probe all --quick                            # tiny sizes: does it run, and what does it look like?

Picture, page and numbers (JSON) lie in `reports/probes/` of the workspace, and in MLflow as a run `probe NAME`. The
flow `probe` does the same from Prefect's page. In Python, with any sizes:

    from curriculum.probes import PROBES, Subject
    result = PROBES["batch_size"](batch_sizes=(16, 64, 256)).run(Subject("mine", config, theta))
    result.panels, result.findings

Numbers repeat with the same seed on the same machine (times do not). A probe that makes no sense on an optimizer
refuses it and names the architectures that it fits. They are small on purpose: what they show is a behaviour, not a
ranking; for that, see `keirin evaluate`.

Adding one is a file in `curriculum/probes/` and a line in its `PROBES`; the drawer, the command, the flow, the
contract tests and this page (`make probes-page`) follow.
"""


def page() -> str:
    """Returns the page."""
    sections = [
        f"## {probe.title}\n\n`keirin probe {name}` · {probe.source}\n\n*{probe.question}*\n\n"
        f"{probe.how_to_read}\n\nDeviations: {probe.deviations}\n"
        for name, probe in PROBES.items()
    ]
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    (Path(__file__).parent / "probes.md").write_text(page(), "utf-8")
