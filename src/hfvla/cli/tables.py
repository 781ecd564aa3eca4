"""Results as tables for people. Text is never read as markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["checks_table", "number", "show_families", "show_training", "show_values", "table"]

_STYLES = {"ok": "green", "info": "cyan", "warn": "yellow", "fail": "bold red"}


class _Console(Console):
    """A console that leaves it to the program how it ends when the reader of the output has left."""

    def on_broken_pipe(self) -> None:
        """Let the error through; rich would exit with 1."""
        raise


def console() -> Console:
    """Return a console on today's stdout; wide enough for tables when stdout is not a terminal."""
    found = _Console(markup=False, highlight=False)
    return found if found.is_terminal else _Console(markup=False, highlight=False, width=160)


def number(value: Any) -> str:
    """Return a cell's text: thousands separated, four significant digits after the point, lists joined."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={number(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(number(part) for part in value)
    return str(value)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return a table; numbers stand right."""
    rows = [list(row) for row in rows]
    result = Table(title=Text(title), title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        result.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text(number(cell)) for cell in row))
    return result


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(part, Mapping) for part in value.values())


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def value_tables(title: str, values: Mapping[str, Any]) -> Iterable[Table]:
    """Yield tables of nested mappings: one of plain values, one a list of mappings, one a level of nesting."""
    plain = {k: v for k, v in values.items() if not isinstance(v, Mapping) and not _is_table(v)}
    if plain:
        yield table(title, ["", "value"], plain.items())
    flat = {k: v for k, v in values.items() if isinstance(v, Mapping) and v and not _is_nested(v)}
    if flat:
        columns = list(dict.fromkeys(key for row in flat.values() for key in row))
        yield table(title, ["", *columns], ([name, *(row.get(c) for c in columns)] for name, row in flat.items()))
    for key, value in values.items():
        heading = f"{title}: {key}" if title else key
        if _is_table(value):
            columns = list(dict.fromkeys(column for row in value for column in row))
            yield table(heading, columns, ([row.get(column) for column in columns] for row in value))
        elif _is_nested(value):
            yield from value_tables(heading, value)


def show_values(title: str, values: Mapping[str, Any]) -> None:
    """Print nested mappings as tables."""
    for part in value_tables(title, values):
        console().print(part)


def show_training(summary: Mapping[str, Any]) -> None:
    """Print the summary of a training run: stages, scores beside the baselines, and where everything lies."""
    out = console()
    columns = ["stage", "seconds", "steps", "epochs", "trainable", "of parameters", "train loss", "best metric"]
    keys = ["name", "seconds", "steps", "epochs", "trainable_parameters", "parameters", "train_loss", "best_metric"]
    out.print(table("stages", columns, [[stage.get(key) for key in keys] for stage in summary.get("stages", [])]))
    if summary.get("evaluation"):
        from hfvla.evaluation.run import results_tables
        from hfvla.family import EvaluationResult

        results = {
            name: EvaluationResult(metrics=scores["metrics"], baselines=scores["baselines"])
            for name, scores in summary["evaluation"].items()
        }
        out.print(*results_tables(results), sep="\n")
    if "no_report" not in summary:
        out.print(f"Report: {summary['output_dir']}/report.html", soft_wrap=True)
    out.print(f"Checkpoint: {summary['output_dir']}/final", soft_wrap=True)


def show_families(families: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the names that recipes of each family may use."""
    out = console()
    for name, family in families.items():
        out.print(f"{name}: {family['summary']}", style="bold", soft_wrap=True)
        out.print(
            table("parameter groups", ["group", "layers", "what"],
                  [[key, group["layers"], group["description"]] for key, group in family["groups"].items()])
        )  # fmt: skip
        out.print(table("losses", ["term", "what"], family["losses"].items()))
        out.print(
            table("data sources", ["source", "options", "what"],
                  [[key, list(source["options"]), source["description"]] for key, source in family["sources"].items()])
        )  # fmt: skip
        if family.get("request"):
            fields = family["request"]["properties"]
            needed = dict.fromkeys(family["request"]["required"], "required")
            rows = [[name, needed.get(name, ""), field["description"]] for name, field in fields.items()]
            out.print(table("request (hfvla predict)", ["field", "", "what"], rows))
        out.print(f"keep_best: {', '.join(family['keep_best'])}\n", soft_wrap=True)


def checks_table(checks: Iterable[Any]) -> None:
    """Print the doctor's findings, worst last seen in colour, and the fixes below."""
    result = Table(header_style="bold")
    for column in ("check", "status", "found", "fix"):
        result.add_column(column, overflow="fold")
    for check in checks:
        result.add_row(
            Text(check.name), Text(check.status, style=_STYLES[check.status]), Text(check.found), Text(check.fix)
        )
    console().print(result)
