"""What there is to read of a report: the page's text, identifiers and references, and the terminal's table."""

from __future__ import annotations

from html.parser import HTMLParser
from io import StringIO

from rich.console import Console

from flows import reporting
from flows.reporting import ReportData


class Collector(HTMLParser):
    """Collects identifiers, references and text, and checks that elements nest."""

    void = frozenset({"meta", "br", "img", "link", "input", "hr", "rect", "circle", "line", "path", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value or "")
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Collector:
    """Returns what was collected; everything that was opened is closed."""
    collector = Collector()
    collector.feed(page)
    assert collector.open == []
    return collector


def console_text(data: ReportData, width: int = 140) -> str:
    """Returns the terminal table as a terminal without colours shows it."""
    console = Console(width=width, record=True, file=StringIO())
    console.print(reporting.terminal_table(data))
    return console.export_text()
