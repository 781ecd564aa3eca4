"""A plan in ten lines: what trains in each stage, what it fits on, how long it takes, and how much disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from hfvla.cli.plan_tables import as_bytes, setting_label
from hfvla.cli.tables import console, number

__all__ = ["duration", "show_summary"]

_GIGA = 1e9
_MAX_STAGES = 8
_MAX_NOTES = 3
_MAX_ENTRIES = 4


def duration(hours: float | None) -> str:
    """Return hours as people say them: "12 min", "5.1 h", "310 h"."""
    if hours is None:
        return "-"
    if hours < 1:
        minutes = hours * 60
        return "under a minute" if minutes < 1 else f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"


def show_summary(plan: Mapping[str, Any], command: str) -> None:
    """Print a plan in about ten lines.

    Args:
        plan: of `plan_recipe` or `plan_shape`.
        command: that shows all of it.
    """
    out = console()
    stages = plan["stages"]
    count = f"{len(stages)} stage" + ("s" if len(stages) > 1 else "")
    out.print(
        Text.assemble(
            (plan["recipe"], "bold"), f"  {plan['family']}, {_scalars(plan['total_parameters'])} parameters, {count}"
        )
    )
    out.print(_stage_table(plan))
    for title, text in _answers(plan):
        out.print(Text.assemble((f"{title:<8}", "bold"), text), soft_wrap=True)
    notes = [*plan.get("unused", ())]
    notes += [f"stage {stage['name']}: {note}" for stage in stages for note in stage.get("notes", ())]
    for note in notes[:_MAX_NOTES]:
        out.print(Text.assemble(("Note    ", "bold yellow"), note), soft_wrap=True)
    out.print(
        Text.assemble(("More    ", "bold"), command, "  (every setting, phase and number of GPUs; or --json)"),
        soft_wrap=True,
    )


def _stage_table(plan: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for heading in ("stage", "trains", "of all", "samples", "steps", "GPU memory", "checkpoint"):
        table.add_column(heading, justify="left" if heading in ("stage", "trains") else "right", no_wrap=True)
    for stage in plan["stages"][:_MAX_STAGES]:
        peak = _as_written(stage)
        total = plan["total_parameters"]
        table.add_row(
            Text(stage["name"]),
            Text(_entries(stage), overflow="ellipsis"),
            f"{100 * stage['trainable_parameters'] / total:.3g} %" if total else "-",
            number(stage["samples"]),
            number(stage["steps"]),
            f"{peak['total'] / _GIGA:.1f} GB" if peak else "-",
            as_bytes(stage["checkpoint_bytes"]),
        )
    if len(plan["stages"]) > _MAX_STAGES:
        table.add_row(f"and {len(plan['stages']) - _MAX_STAGES} more")
    return table


def _entries(stage: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(entry for phase in stage["phases"] for entry in phase["add"]))
    more = f" and {len(names) - _MAX_ENTRIES} more" if len(names) > _MAX_ENTRIES else ""
    return ", ".join(names[:_MAX_ENTRIES]) + more


def _scalars(count: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _as_written(stage: Mapping[str, Any], gpus: int = 1) -> Mapping[str, Any] | None:
    """Return the memory of a stage in the setting that the recipe asks for."""
    wanted = stage["as_written"]
    for row in (stage.get("costs") or {}).get("settings", ()):
        if row["gpus"] == gpus and all(row[key] == wanted[key] for key in ("setting", "checkpointing")):
            return row
    return None


def _answers(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    stages = [stage for stage in plan["stages"] if stage.get("costs")]
    found = [("Rows", text) for text in _mixtures(plan["stages"])]
    if len(stages) == len(plan["stages"]):
        names = [gpu["name"] for gpu in plan["gpus"]]
        found.append(("Fits", _fits(stages, names)))
        found.append(("Time", _time(stages, names)))
    if plan.get("disk"):
        disk = plan["disk"]
        found.append(("Disk", f"{as_bytes(disk['finished'])} in the end, at most {as_bytes(disk['most'])} on the way"))
    told = plan.get("assumptions", ())
    if told:
        found.append(
            (
                "Assumed",
                "; ".join(one for one in told if not _general(one))
                or "speeds of data sheets at a share of 40 %; see --all",
            )
        )
    return found


def _mixtures(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what an epoch has of each source, for stages with several; stages with one mixture share a line."""
    names: dict[str, list[str]] = {}
    for stage in stages:
        sources = stage.get("mixture") or ()
        if len(sources) > 1:
            parts = [_part(source) for source in sources[:_MAX_ENTRIES]]
            more = f" and {len(sources) - _MAX_ENTRIES} more" if len(sources) > _MAX_ENTRIES else ""
            names.setdefault(", ".join(parts) + more, []).append(stage["name"])
    several = len(stages) > 1 and (len(names) > 1 or any(len(of) < len(stages) for of in names.values()))
    return [f"{', '.join(of)}: {text}" if several else text for text, of in list(names.items())[:_MAX_NOTES]]


def _part(source: Mapping[str, Any]) -> str:
    if source["rows_per_epoch"] is None:
        return f"{source['source']} {source['share']:.1%} streamed"
    seen = f"{number(source['rows_per_epoch'])} of {number(source['rows'])}"
    return f"{source['source']} {seen} ({source['share']:.1%})"


def _general(statement: str) -> bool:
    """Tell whether an assumption is the same for every plan; `--all` prints these."""
    return statement.startswith(("a batch takes", "price of", "memory adds"))


def _options(stage: Mapping[str, Any], gpu: str) -> Mapping[str, Any] | None:
    """Return a stage's time on a GPU as the recipe is written, on the fewest of them that hold it."""
    rows = [row for row in stage["costs"]["as_written"] if row["gpu"] == gpu]
    return min(rows, key=lambda row: row["gpus"], default=None)


def _fits(stages: Sequence[Mapping[str, Any]], gpus: Sequence[str]) -> str:
    label = setting_label(stages[0]["as_written"]["setting"], stages[0]["as_written"]["checkpointing"])
    label = f"as written ({stages[0]['precision']}, {label})"
    counts = {gpu: [_options(stage, gpu) for stage in stages] for gpu in gpus}
    whole = {gpu: max(row["gpus"] for row in rows if row) for gpu, rows in counts.items() if all(rows)}
    one = [gpu for gpu in gpus if whole.get(gpu) == 1]
    text = (
        f"one {one[0]}" + (f" and {len(one) - 1} larger or faster" if len(one) > 1 else "") + f", {label}"
        if one
        else ""
    )
    if one and len(one) == len(gpus):
        text = f"every GPU of the table, from {one[0]} on, {label}"
    if not one and whole:
        gpu, count = min(whole.items(), key=lambda item: item[1])
        text = f"{count} x {gpu}, {label}"
    if not text:
        text = f"no GPU of the table {label}"
    smaller = _smallest_otherwise(stages, gpus, one)
    return text + (f"; {smaller}" if smaller else "")


def _smallest_otherwise(stages: Sequence[Mapping[str, Any]], gpus: Sequence[str], already: Sequence[str]) -> str:
    """Return the smallest GPU that holds every stage in another setting, where it is smaller than what does now."""
    first = gpus.index(already[0]) if already else len(gpus)
    for gpu in gpus[:first]:
        rows = [_cheapest(stage, gpu) for stage in stages]
        if all(rows):
            most = max((row for row in rows if row), key=lambda row: (row["gpus"], row["total"]))
            label = setting_label(most["setting"], most["checkpointing"])
            return f"{most['gpus']} x {gpu} with {label}" if most["gpus"] > 1 else f"one {gpu} with {label}"
    return ""


def _cheapest(stage: Mapping[str, Any], gpu: str) -> Mapping[str, Any] | None:
    rows = [row for row in stage["costs"]["cheapest"] if row["gpu"] == gpu]
    return min(rows, key=lambda row: row["gpus"], default=None)


def _time(stages: Sequence[Mapping[str, Any]], gpus: Sequence[str]) -> str:
    """Return the hours of the whole run on each GPU that holds it, the cheapest setting where it is not as written."""
    shown = []
    for gpu in gpus:
        rows = [_options(stage, gpu) or _cheapest(stage, gpu) for stage in stages]
        if all(rows):
            count = max(row["gpus"] for row in rows if row)
            hours = sum(row["hours"] for row in rows if row)
            shown.append((gpu, count, hours))
    parts = [
        f"{count} x {gpu} {duration(hours)}" if count > 1 else f"{gpu} {duration(hours)}"
        for gpu, count, hours in shown
    ]
    if shown and all(hours * 60 < 1 for _, _, hours in shown):
        parts = ["under a minute on every GPU of the table"]
    cpu = [stage["costs"].get("cpu") for stage in stages]
    if all(cpu):
        parts.append(f"this CPU {duration(sum(row['hours'] for row in cpu if row))}")
    return ", ".join(parts) or "unknown: nothing holds it"
