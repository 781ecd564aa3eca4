"""The tables a run prints before each stage, as text for the log."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from hfvla.recipe import Stage
from hfvla.training.checkpoint.handover import HandoverReport
from hfvla.training.stage.groups import GroupRow
from hfvla.training.stage.phases import begins

__all__ = ["handover_text", "trainable_text", "what_trains"]

_WIDTH = 119


def _text(table: Table) -> str:
    buffer = io.StringIO()
    # In a notebook rich would show it, whatever `file` says.
    Console(file=buffer, width=_WIDTH, color_system=None, force_jupyter=False).print(table)
    return buffer.getvalue().rstrip()


def what_trains(rows: Sequence[GroupRow], report: HandoverReport) -> str:
    """Return in one line what ever trains in a stage, of how much, and what it goes on from.

    Args:
        rows: `StagedTrainer.trainable_table`; the last one is the total of the last phase.
        report: of the hand-over.
    """
    last = [row for row in rows if row.phase == rows[-1].phase]
    groups = ", ".join(row.group for row in last[:-1] if row.trainable)
    total = last[-1]
    return f"trains {total.trainable:,} of {total.parameters:,} parameters ({groups}), from {report.source}"


def trainable_text(stage: Stage, rows: Sequence[GroupRow]) -> str:
    """Return a table of parameter groups for each phase: what trains and decays, learning rate and dtype.

    Args:
        stage: the stage.
        rows: `StagedTrainer.trainable_table`; those of one phase stand together.
    """
    tables = []
    for phase, members in itertools.groupby(rows, key=lambda row: row.phase):
        title = f"stage '{stage.name}': what trains"
        if phase:
            title = f"stage '{stage.name}': what trains from {begins(stage.phases[phase - 1])} on (phase {phase})"
        tables.append(_groups_text(title, list(members)))
    return "\n".join(tables)


def _groups_text(title: str, rows: Sequence[GroupRow]) -> str:
    table = Table(title=title, title_justify="left")
    for heading in ("group", "tensors", "parameters", "trainable", "decayed", "share", "learning rate", "dtype"):
        table.add_column(heading, justify="left" if heading in ("group", "dtype") else "right")
    for row in rows:
        if row.group == "total":
            table.add_section()
        rate = f"{row.learning_rate:.2e}" if row.learning_rate else "frozen"
        table.add_row(
            row.group,
            f"{row.tensors:,}",
            f"{row.parameters:,}",
            f"{row.trainable:,}",
            f"{row.decayed:,}",
            f"{row.share:.1%}",
            rate,
            row.dtype,
        )
    return _text(table)


def handover_text(stage: str, report: HandoverReport) -> str:
    """Return the hand-over by module; modules carried unchanged are summed in one line."""
    table = Table(title=f"stage '{stage}': taken over from '{report.source}'", title_justify="left")
    for heading in ("module", "status", "tensors", "parameters", "how"):
        table.add_column(heading, justify="right" if heading in ("tensors", "parameters") else "left")
    rows = report.modules()
    carried = [row for row in rows if row["status"] == "carried"]
    if carried:
        tensors, parameters = sum(row["tensors"] for row in carried), sum(row["parameters"] for row in carried)
        table.add_row(f"{len(carried)} modules", "carried", f"{tensors:,}", f"{parameters:,}", "")
    for row in rows:
        if row["status"] != "carried":
            table.add_row(row["module"], row["status"], f"{row['tensors']:,}", f"{row['parameters']:,}", row["how"])
    return _text(table)
