"""Progress on the terminal: bars where there is a terminal, plain lines where there is none (a log, a
pipe).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_INTERVAL = 5.0
"""Seconds between two lines about the same piece of work, without a terminal."""

Listener = Callable[[float], None]


@dataclass
class Task:
    """A piece of work with a known number of parts.

    Attributes:
      title: What is being done.
      total: Number of parts.
      done: Parts that are finished.
      note: What to say beside it: a loss, a rate.
    """

    title: str
    total: int
    done: int = 0
    note: str = ""
    _show: Callable[[Task], None] = field(default=lambda _: None, repr=False)
    _listeners: list[Listener] = field(default_factory=list, repr=False)

    def advance(self, parts: int = 1, note: str | None = None) -> None:
        """Finishes `parts` more parts."""
        self.done += parts
        self.note = self.note if note is None else note
        self._show(self)
        for listener in self._listeners:
            listener(100.0 * self.done / max(self.total, 1))

    def listen(self, listener: Listener) -> None:
        """Calls `listener` with the percentage whenever it moves."""
        self._listeners.append(listener)


class Reporter:
    """Where a flow says what it does.

    Args:
      console: The terminal; `Console(quiet=True)` says nothing.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    def heading(self, text: str) -> None:
        """Announces a step."""
        self.console.print(f"[bold cyan]▸[/bold cyan] [bold]{text}[/bold]", highlight=False)

    def line(self, text: str, *, whole: bool = False) -> None:
        """Says one line about the current step; `whole` ones are never broken, so that they can be copied."""
        self.console.print(f"  {text}", highlight=False, soft_wrap=whole)

    def show(self, renderable: RenderableType) -> None:
        """Shows a table or any other piece of rich."""
        self.console.print(renderable)

    @contextlib.contextmanager
    def task(self, title: str, total: int, *, done: int = 0) -> Iterator[Task]:
        """Shows the progress of a piece of work while the context is open.

        Args:
          title: What is being done.
          total: Number of parts.
          done: Parts that were finished before (by an earlier run).
        """
        if self.console.is_terminal:
            with self._bar(title, total, done) as task:
                yield task
            return
        last = time.monotonic()

        def show(task: Task) -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_INTERVAL or task.done >= task.total:
                last = time.monotonic()
                self.line(f"{task.title}: {task.done}/{task.total} {task.note}".rstrip())

        yield Task(title, total, done, _show=show)

    @contextlib.contextmanager
    def _bar(self, title: str, total: int, done: int) -> Iterator[Task]:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            identifier = progress.add_task(title, total=total, completed=done, note="")

            def show(task: Task) -> None:
                progress.update(identifier, completed=task.done, note=task.note)

            yield Task(title, total, done, _show=show)
