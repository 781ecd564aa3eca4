"""Where a run is shown: a terminal with a live bar, a stream of plain lines, a notebook, or nowhere."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hfvla.errors import HfvlaError
from hfvla.training.run.screen.columns import clock

__all__ = ["LiveView", "NotebookView", "PlainView", "Status", "View", "build_view", "status_lines"]

VARIABLE = "HFVLA_SCREEN"
_KINDS = ("auto", "live", "plain", "notebook", "off")
_PLAIN_WIDTH = 160
_NOTEBOOK_WIDTH, _NOTEBOOK_LINES = 120, 200
_REFRESH_A_SECOND = 4


@dataclass(frozen=True)
class Status:
    """What the bar says.

    Attributes:
        run: name of the run.
        share: of it that is over, 0 to 1.
        spent_s: seconds so far.
        left_s: seconds to go, or None while nobody knows.
        part: "stage grounding (2 of 3)".
        detail: "step 40/200".
        best: "best accuracy 0.83 at step 40", or "".
    """

    run: str
    share: float
    spent_s: float
    left_s: float | None
    part: str = ""
    detail: str = ""
    best: str = ""


class View(Protocol):
    """A place where lines stay and a status changes."""

    width: int

    def line(self, text: Text) -> None:
        """Show a line that stays."""

    def update(self) -> None:
        """Show the status of now."""

    def close(self) -> None:
        """Leave the lines and take the bar away."""


def status_lines(status: Status) -> RenderableType:
    """Return the bar, and below it where the run is."""
    left = f"~{clock(status.left_s)} left" if status.left_s is not None else "time left unknown yet"
    top = Table.grid(padding=(0, 2), expand=True)
    top.add_column(no_wrap=True)
    top.add_column(ratio=1)
    top.add_column(no_wrap=True, justify="right")
    share = Text(f"{status.share:4.0%}  {clock(status.spent_s)} gone, {left}")
    top.add_row(Text(status.run, "bold"), ProgressBar(total=1.0, completed=status.share), share)
    below = Text.assemble((status.part, "bold cyan"), "  ", status.detail, "  ", (status.best, "green"))
    below.no_wrap, below.overflow = True, "ellipsis"
    whole = Table.grid(expand=True)
    whole.add_row(top)
    whole.add_row(below)
    return whole


class LiveView:
    """A terminal: lines scroll, and the bar stays below them; log messages and warnings go above it.

    Args:
        status: gives the status of now.
        console: default: standard error.
    """

    def __init__(self, status: Callable[[], Status], console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.width = self.console.width
        self._live = Live(
            get_renderable=lambda: status_lines(status()),
            console=self.console,
            refresh_per_second=_REFRESH_A_SECOND,
            redirect_stdout=False,  # a result may be written there
        )
        self._live.start(refresh=True)

    def line(self, text: Text) -> None:
        """Show a line that stays."""
        self.console.print(text, soft_wrap=True)

    def update(self) -> None:
        """Leave it to the refresh, which comes four times a second."""

    def close(self) -> None:
        """Take the bar away."""
        self._live.transient = True
        self._live.stop()


class PlainView:
    """A stream that is no terminal: lines, and nothing that moves.

    Args:
        width: of the lines, in characters.
    """

    def __init__(self, width: int = _PLAIN_WIDTH) -> None:
        self.width = width

    def line(self, text: Text) -> None:
        """Write a line; the stream is what standard error is now."""
        stream = sys.stderr
        if stream is not None:
            stream.write(f"{text.plain}\n")
            stream.flush()

    def update(self) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


class NotebookView:
    """The output of a notebook's cell: the same lines and the same bar, drawn anew in place.

    Args:
        status: gives the status of now.
    """

    width = _NOTEBOOK_WIDTH

    def __init__(self, status: Callable[[], Status]) -> None:
        from IPython.display import HTML, display

        self._status, self._html = status, HTML
        self._lines: list[Text] = []
        self._handle: Any = display(HTML(self._draw()), display_id=True)

    def line(self, text: Text) -> None:
        """Show a line that stays; the first of a very long run go."""
        self._lines = [*self._lines, text][-_NOTEBOOK_LINES:]
        self.update()

    def update(self) -> None:
        """Draw the status of now."""
        self._handle.update(self._html(self._draw()))

    def close(self) -> None:
        """Leave the lines."""
        self._handle.update(self._html(self._draw(with_bar=False)))

    def _draw(self, with_bar: bool = True) -> str:
        console = Console(
            file=io.StringIO(), record=True, width=self.width, force_terminal=True, color_system="truecolor",
            force_jupyter=False, legacy_windows=False,
        )  # fmt: skip
        for text in self._lines:
            console.print(text, soft_wrap=True)
        if with_bar:
            console.print(status_lines(self._status()))
        style = "font-family:ui-monospace,Menlo,'DejaVu Sans Mono',monospace;line-height:1.35;white-space:pre;"
        code = f'<pre style="{style}overflow-x:auto">{{code}}</pre>'
        return console.export_html(inline_styles=True, code_format=code)


def _in_notebook() -> bool:
    from transformers.utils.import_utils import is_in_notebook

    return is_in_notebook()


def build_view(status: Callable[[], Status], moving: bool = True) -> View | None:
    """Return the view for this process: what HFVLA_SCREEN names, else what standard error is; None for none.

    Args:
        status: gives the status of now.
        moving: whether a bar may be drawn (`disable_tqdm` of the recipe says no).

    Raises:
        HfvlaError: HFVLA_SCREEN names no view.
    """
    kind = os.environ.get(VARIABLE, "").lower() or "auto"
    if kind not in _KINDS:
        raise HfvlaError("no such screen", where=VARIABLE, got=kind, expected=", ".join(_KINDS))
    if kind == "auto":
        if not moving:
            kind = "plain"
        elif _in_notebook():
            kind = "notebook"
        else:
            kind = "live" if Console(stderr=True).is_terminal else "plain"
    if kind == "off":
        return None
    if kind == "live":
        return LiveView(status)
    return NotebookView(status) if kind == "notebook" else PlainView()
