"""Plans and dry runs as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hfvla.cli.tables import console, number, table

__all__ = ["as_bytes", "setting_label", "show_dry_run", "show_plan"]

_GIGA = 1e9
_SHOWN_ON_ONE = ("plain", "zero2+optimizer", "zero3+optimizer+parameters")  # sharding alone changes nothing there


def show_plan(plan: Mapping[str, Any]) -> None:
    """Print a plan: the parts of the model, and what each stage trains, for how long, on what, and what it needs."""
    out = console()
    total = plan["total_parameters"]
    rows = [[part["part"], part["tensors"], part["parameters"], _share(part["parameters"], total)]
            for part in plan["parameters"]]  # fmt: skip
    title = f"{plan['family']}: {plan['recipe']}"
    out.print(table(title, ["part", "tensors", "parameters", "share"], [*rows, ["total", None, total, "100 %"]]))
    for stage in plan["stages"]:
        _show_stage(stage, total)
    for text in plan.get("unused", ()):
        out.print(f"Note: {text}", soft_wrap=True)
    for assumption in plan.get("assumptions", ()):
        out.print(f"Assumed: {assumption}.", soft_wrap=True)


def _show_stage(stage: Mapping[str, Any], total: int) -> None:
    out = console()
    columns = ["group", "tensors", "parameters", "trainable", "share", "learning_rate", "dtype"]
    groups = [[_cell(group, column) for column in columns] for group in stage["groups"]]
    out.print(table(f"stage {stage['name']}", [column.replace("_", " ") for column in columns], groups))
    if len(stage.get("phases", ())) > 1:
        out.print(_phases(stage, total))
    if len(stage.get("mixture", ())) > 1:
        columns = ["source", "weight", "rows", "rows_per_epoch", "share"]
        rows = [[_cell(source, column) for column in columns] for source in stage["mixture"]]
        out.print(table(f"stage {stage['name']}: mixture", [column.replace("_", " ") for column in columns], rows))
    out.print(
        f"  {number(stage['samples'])} samples, {number(stage['steps'])} steps, {number(stage['epochs'])} epochs, "
        f"batch {number(stage['batch_size'])}; losses {number(stage['losses'])}\n"
        f"  trains {number(stage['trainable_parameters'])} of {number(total)} parameters "
        f"({_share(stage['trainable_parameters'], total)}); checkpoint {as_bytes(stage['checkpoint_bytes'])}"
        + _more_bytes(stage),
        soft_wrap=True,
    )
    if stage.get("costs"):
        _show_costs(stage)
    for note in stage.get("notes", ()):
        out.print(f"  Note: {note}", soft_wrap=True)
    out.print()


def _more_bytes(stage: Mapping[str, Any]) -> str:
    adapters = f", adapter beside it {as_bytes(stage['adapter_bytes'])}" if stage.get("adapter_bytes") else ""
    return adapters + (f", to resume from {as_bytes(stage['resume_bytes'])}" if stage.get("resume_bytes") else "")


def _phases(stage: Mapping[str, Any], total: int) -> Any:
    columns = ["begins", "step", "steps", "joins", "learning rates", "trainable", "share", "loss weights"]
    rows = [
        [
            phase["begins"],
            phase["step"],
            phase["steps"],
            ", ".join(phase["add"]) or "-",
            phase["learning_rates"],
            phase["trainable_parameters"],
            _share(phase["trainable_parameters"], total),
            phase["losses"],
        ]
        for phase in stage["phases"]
    ]
    return table(f"stage {stage['name']}: phases", columns, rows)


def _show_costs(stage: Mapping[str, Any]) -> None:
    out = console()
    costs, written = stage["costs"], stage["as_written"]
    settings = costs["settings"]
    counts = sorted({row["gpus"] for row in settings})
    cells: dict[tuple[str, bool], dict[int, str]] = {}
    for row in settings:
        cells.setdefault((row["setting"], row["checkpointing"]), {})[row["gpus"]] = _fit(row)
    rows: list[list[Any]] = [
        [_label(key, written), *(found[count] for count in counts)] for key, found in cells.items()
    ]
    headings = [f"{count} GPU{'s' if count > 1 else ''}" for count in counts]
    title = f"stage {stage['name']}: peak memory of each GPU, and the smallest GPU that has it ({stage['precision']})"
    out.print(table(title, ["setting", *headings], rows))
    parts = ["weights", "gradients", "optimizer", "activations", "buffers", "peak", "overhead", "total", "host"]
    rows = [
        [_label((row["setting"], row["checkpointing"]), written), *(_gigabytes(row[part]) for part in parts)]
        for row in settings
        if row["gpus"] == 1 and (row["setting"] in _SHOWN_ON_ONE or row["setting"] == written["setting"])
    ]
    out.print(table(f"stage {stage['name']}: on one GPU, in GB ({stage['optim']})", ["setting", *parts], rows))
    _show_time(stage, costs["cheapest"])


def _show_time(stage: Mapping[str, Any], options: Sequence[Mapping[str, Any]]) -> None:
    out = console()
    if not options:
        out.print("  Fits no GPU of the table in any setting: train less of it, or on smaller batches.")
        return
    columns = ["GPU", "GPUs", "setting", "GB", "step s", "samples/s", "hours", "price of a sample"]
    least = options[0]["price_per_sample"]
    best: dict[str, Mapping[str, Any]] = {}
    for option in options:  # the cheapest first
        best.setdefault(option["gpu"], option)
    rows = [
        [
            option["gpu"] + (" (measured)" if option["measured"] else ""),
            option["gpus"],
            _label((option["setting"], option["checkpointing"]), {}),
            _gigabytes(option["total"]),
            option["step_seconds"],
            option["samples_per_second"],
            f"{option['hours']:.3g}" if option["hours"] >= 0.01 else "< 0.01",
            f"x {option['price_per_sample'] / least:.2f}",
        ]
        for option in best.values()
    ]
    out.print(table(f"stage {stage['name']}: cheapest setting that fits each GPU, the best first", columns, rows))


def show_dry_run(result: Mapping[str, Any]) -> None:
    """Print what one step of each stage and phase showed: losses, gradients, seconds, memory, and what is wrong."""
    out = console()
    columns = ["phase", "loss terms", "trains", "tensors", "with gradient", "norm", "step s", "peak"]
    for stage in result["stages"]:
        rows: list[list[Any]] = []
        for phase in stage["phases"]:
            shown = [phase["begins"], phase["losses"]]
            measured = [phase["step_seconds"], as_bytes(phase["peak_bytes"])]
            found = phase["gradients"] or [{"entry": "(not looked at under ZeRO)"}]
            for row in found:
                cells = [row.get(key) for key in ("entry", "tensors", "with_gradient", "norm")]
                rows.append([*shown, *cells, *measured])
                shown, measured = ["", ""], [None, ""]
        out.print(table(f"stage {stage['name']}: handed over {number(stage['handover'])}", columns, rows))
    for problem in result["problems"]:
        out.print(f"Problem: {problem}", style="bold red", soft_wrap=True)
    if not result["problems"]:
        out.print(f"Every stage and phase trains ({number(result['seconds'])} s); nothing was left on disk.")


def _label(key: tuple[str, bool], written: Mapping[str, Any]) -> str:
    """Return a setting's name; the one that the recipe asks for has a star."""
    setting, checkpointing = key
    star = " *" if written == {"setting": setting, "checkpointing": checkpointing} else ""
    return setting_label(setting, checkpointing) + star


def setting_label(setting: str, checkpointing: bool) -> str:
    """Return a setting's name for people: "zero3, offload optimizer and parameters, checkpointing"."""
    shown = setting.replace("+optimizer", ", offload optimizer").replace("+parameters", " and parameters")
    return shown + (", checkpointing" if checkpointing else "")


def _fit(row: Mapping[str, Any]) -> str:
    fitting = [name for name, fits in row["fits"].items() if fits]
    smallest = fitting[0] if fitting else "fits none"  # they stand in the order of their memory
    return f"{row['total'] / _GIGA:.1f} GB  {smallest}"


def _gigabytes(count: float) -> float:
    return round(count / _GIGA, 2)


def _cell(group: Mapping[str, Any], column: str) -> Any:
    value = group.get(column)
    return f"{100 * value:.1f} %" if column == "share" and isinstance(value, int | float) else value


def _share(part: float, total: float) -> str:
    return f"{100 * part / total:.1f} %" if total else "-"


def as_bytes(count: float | None) -> str:
    """Return bytes in the unit that suits them: "9.5 GB"."""
    if count is None:
        return "-"
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
