"""Progress: plain lines without a terminal, a bar on one."""

from __future__ import annotations

import io

from rich.console import Console

from flows.progress import Reporter


def test_without_a_terminal_progress_is_plain_lines() -> None:
    output = io.StringIO()
    seen: list[float] = []
    with Reporter(Console(file=output, force_terminal=False)).task("timing", 4, done=1) as task:
        task.listen(seen.append)
        for _ in range(3):
            task.advance(note="fast")
    assert output.getvalue().strip() == "timing: 4/4 fast"  # the others came within five seconds
    assert seen == [50.0, 75.0, 100.0]


def test_on_a_terminal_progress_is_a_bar() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100)
    with Reporter(console).task("training", 2) as task:
        task.advance(2, note="meta-loss 0.1")
    assert "training" in output.getvalue()
    assert "2/2" in output.getvalue()
