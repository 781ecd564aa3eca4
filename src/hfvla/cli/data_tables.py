"""What `hfvla data` prints for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text

from hfvla.cli.tables import console, number, table

__all__ = ["show_findings", "show_inspection"]

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_WIDTH = 32


def show_inspection(result: Mapping[str, Any]) -> None:
    """Print what was found at a path: files, counts, what is unusable, histograms."""
    out = console()
    census = result["census"]
    out.print(f"{result['path']}: read as {result['read_as']}", style="bold", soft_wrap=True)
    for name, count in result["also_read_by"].items():
        out.print(f"  also read by {name}: {count:,} rows", soft_wrap=True)
    files = census.get("files") or {}
    if files:
        out.print(table("files", ["file", "taken for"], files.items()))
    for name, reason in (census.get("unknown") or {}).items():
        out.print(f"  not recognised: {name}: {reason}", style="yellow", soft_wrap=True)
    counts = [["records found", census.get("found")], ["records usable", census.get("usable")]]
    counts += [["rows", result["rows"]], ["groups", result["groups"]], ["looked at", result["looked_at"]]]
    out.print(table("counts", ["", "count"], [row for row in counts if row[1] is not None]))
    rejected = census.get("rejected") or {}
    if rejected:
        rows = [[reason, entry["count"], entry["first"]] for reason, entry in rejected.items()]
        out.print(table("unusable records", ["reason", "count", "first"], rows))
    for name in ("splits", "sources", "kinds"):
        if len(result[name]) > 1 or any(result[name]):
            out.print(
                table(name, [name.removesuffix("s"), "rows"], [[key or "-", n] for key, n in result[name].items()])
            )
    for name, found in result["texts"].items():
        _show_histogram(f"{name} of a row", found)
    _show_pictures(result["pictures"])
    if result["boxes"]:
        out.print(table(f"{result['boxes']['count']:,} boxes", ["label", "count"], result["boxes"]["labels"].items()))
    if result.get("sheet"):
        out.print(f"Contact sheet of {result['sheet']['samples']} samples: {result['sheet']['file']}", soft_wrap=True)


def _show_pictures(pictures: Mapping[str, Any]) -> None:
    if not pictures:
        return
    out = console()
    without = f"; {pictures['rows_without']:,} rows without one" if pictures["rows_without"] else ""
    out.print(f"{pictures['count']:,} pictures{without}")
    if pictures.get("broken"):
        first = pictures["first_broken"]
        out.print(f"  {pictures['broken']} cannot be read: {first}", style="bold red", soft_wrap=True)
    for name in ("width", "height", "width_over_height"):
        if name in pictures:
            _show_histogram(f"{name.replace('_', ' ')} of pictures", pictures[name])


def _show_histogram(title: str, found: Mapping[str, Any]) -> None:
    most = max(found["counts"])
    edges = found["edges"]
    rows = []
    for place, count in enumerate(found["counts"]):
        span = (
            number(edges[place])
            if edges[place] == edges[place + 1]
            else f"{edges[place]:.4g} to {edges[place + 1]:.4g}"
        )
        rows.append([span, count, "#" * max(round(_WIDTH * count / most), 1 if count else 0)])
    shown = ("least", "median", "mean", "p95", "largest")
    facts = ", ".join(f"{name} {number(float(found[name]))}" for name in shown)
    console().print(table(f"{title}: {facts}", ["from, to", "count", ""], rows))


def show_findings(findings: Iterable[Any]) -> None:
    """Print what the checks found, worst first."""
    rows = list(findings)
    result = table("", ["check", "status", "where", "count", "found"], [])
    for one in rows:
        status = Text(one.status, style=_STYLES[one.status])
        result.add_row(Text(one.check), status, Text(one.where), Text(number(one.count)), Text(one.found))
    out = console()
    out.print(result)
    failed = sum(one.status == "fail" for one in rows)
    out.print(f"{failed} of {len(rows)} checks failed." if failed else f"No leak in {len(rows)} checks.")
