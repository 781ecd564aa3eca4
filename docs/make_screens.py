"""Pictures for the pages: commands in a real pseudo-terminal, drawn as SVG; a notebook and a report in a real browser.

Run:  pip install pyte nbconvert ipykernel ipywidgets playwright && python docs/make_screens.py

It takes some minutes, for it trains and plans; the last two need Chromium.
"""

import argparse
import asyncio
import copy
import fcntl
import io
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pyte
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "docs" / "assets"
_LONGEST_S = 3600

SCREENS = {
    # file: (command, columns, rows, text after which the picture is taken; None: when the command has ended)
    "screen-plan": (["plan", "recipes/internvl_video_qa/full_8b.yaml", "--samples", "1490"], 118, 40, None),
    "screen-train": (
        ["train", "recipes/ember_vlm/smoke.yaml", "--output", "{out}/run", "--stop-after", "selection"], 118, 30,
        "stage instruct done",
    ),
}  # fmt: skip


PAGES = {
    "screen-notebook-live": ("notebook_live", (1160,)),
    "screen-notebook": ("notebook", (1160,)),
    "screen-report": ("report", (1400, 390)),
}
"""By file: what is looked at in a browser, at which widths."""

MOMENT = re.compile(r"stage instruct \(2 of 4\)\s+step [345]/5")
"""What the bar of a notebook says when its picture is taken."""

CELL = """from hfvla import run_recipe

run_recipe("{root}/recipes/ember_vlm/smoke.yaml", ["output_dir={out}/notebook"])"""


def shoot(words: list[str], columns: int, rows: int, moment: str | None) -> pyte.Screen:
    """Run `hfvla` in a terminal of this size; return what stands on it at a moment, or at the end."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "HFVLA_SCREEN": "live"}
    env |= {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": str(columns), "LINES": str(rows)}
    command = [sys.executable, "-m", "hfvla.cli", *words]
    running = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=env, cwd=ROOT, close_fds=True)
    os.close(side)
    until = time.monotonic() + _LONGEST_S
    try:
        while time.monotonic() < until:
            ready, _, _ = select.select([main], [], [], 0.5)
            try:
                content = os.read(main, 65536) if ready else b""
            except OSError:
                break
            if ready and not content:
                break
            stream.feed(content)
            if moment is not None and any(moment in line for line in screen.display):
                return screen
            if not ready and running.poll() is not None:
                break
    finally:
        running.terminate()
        running.wait()
        os.close(main)
    return screen


def draw(screen: pyte.Screen, words: list[str], path: Path) -> None:
    """Draw a screen as SVG, in its colours, without the empty lines at its end."""
    lines = [Text.assemble(("$ ", "bold"), f"hfvla {' '.join(words)}")]
    for row in range(screen.lines):
        line = Text()
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            named = f"#{cell.fg}" if len(cell.fg) == 6 else cell.fg.replace("brown", "yellow")
            colour = "" if cell.fg == "default" else named
            line.append(cell.data, f"{'bold ' if cell.bold else ''}{colour}".strip() or None)
        line.rstrip()
        lines.append(line)
    while not lines[-1].plain:
        lines.pop()
    console = Console(
        record=True, width=screen.columns, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    drawn = re.sub(
        r"@font-face \{.*?\}\s*", "", console.export_svg(title=f"hfvla {words[0]}"), flags=re.S
    )  # from elsewhere
    path.write_text(re.sub(r"[ \t]+$", "", drawn, flags=re.M).rstrip() + "\n", encoding="utf-8")
    print(path)


def notebook(scratch: Path, moment: re.Pattern[str] | None = None) -> Path:
    """Run a cell that trains in a real kernel; return the notebook as a page, at its end or as it was at a moment."""
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    found = []

    class Watched(NotebookClient):
        """Keeps the notebook as it is at the moment, and interrupts the kernel then."""

        def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
            """Take what the kernel says."""
            result = super().process_message(message, cell, cell_index)
            drawn = message["content"].get("data", {}).get("text/html", "")
            if moment is not None and not found and moment.search(re.sub(r"<[^>]*>", "", drawn)):
                found.append(copy.deepcopy(self.nb))
                asyncio.ensure_future(self.km.interrupt_kernel())
            return result

    code = CELL.format(root=ROOT, out=scratch)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    shutil.rmtree(scratch / "notebook", ignore_errors=True)
    Watched(book, timeout=_LONGEST_S, kernel_name="python3", allow_errors=moment is not None).execute()
    book = found[0] if moment is not None else book
    book.cells[0].source = code.replace(f"{ROOT}/", "").replace(f"{scratch}/", "outputs/")
    path = scratch / "notebook.html"
    path.write_text(HTMLExporter().from_notebook_node(book)[0].replace(f"{scratch}/", "outputs/"), encoding="utf-8")
    return path


def notebook_live(scratch: Path) -> Path:
    """Return the notebook as it is while the second stage trains."""
    return notebook(scratch, MOMENT)


def report(scratch: Path) -> Path:
    """Train the smoke recipe; return its report."""
    words = ["train", "recipes/ember_vlm/smoke.yaml", "--output", f"{scratch}/report", "--overwrite"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-m", "hfvla.cli", *words], cwd=ROOT, env=env, check=True)
    return scratch / "report" / "report.html"


def photograph(page: Path, name: str, widths: tuple[int, ...]) -> None:
    """Open a page in Chromium at some widths, and write what is seen."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for width in widths:
            seen = browser.new_page(viewport={"width": width, "height": 300 if len(widths) == 1 else 2000})
            seen.goto(page.as_uri(), timeout=120_000)  # a machine may be busy
            target = ASSETS / (f"{name}-{width}.png" if len(widths) > 1 else f"{name}.png")
            seen.screenshot(path=target, full_page=len(widths) == 1)
            print(target)
        browser.close()


def main() -> None:
    """Draw the screens that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join({**SCREENS, **PAGES})}")
    parser.add_argument("--scratch", default="/tmp", help="folder for what the commands write")
    arguments = parser.parse_args()
    scratch = Path(arguments.scratch).absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or {**SCREENS, **PAGES}:
        if name in PAGES:
            kind, widths = PAGES[name]
            photograph(
                {"notebook": notebook, "notebook_live": notebook_live, "report": report}[kind](scratch), name, widths
            )
            continue
        words, columns, rows, moment = SCREENS[name]
        words = [word.format(out=arguments.scratch) for word in words]
        shown = [word.replace(f"{arguments.scratch}/", "outputs/") for word in words]
        draw(shoot(words, columns, rows, moment), shown, ASSETS / f"{name}.svg")


if __name__ == "__main__":
    main()
