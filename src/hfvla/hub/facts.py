"""What a model card says, section by section, from a run's records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from hfvla.evaluation import tables
from hfvla.family import EvaluationResult, FamilySpec

__all__ = [
    "LIBRARIES",
    "LICENCES",
    "base_model",
    "calibration",
    "citation",
    "data_rows",
    "energy",
    "index_metrics",
    "limits",
    "loading",
    "opening",
    "plain",
    "recipe_section",
    "score_section",
    "source_of",
    "stage_rows",
]

LIBRARIES = {"final": "hfvla", "merged": "transformers", "adapter": "peft"}
"""What loads the weights, by their form."""

LICENCES = (
    "Weights may be bound by the licences of the data and of the model they began from; 'not stated' means that the "
    "source's reader knows none: look at where your copy came from."
)
_UNKNOWN = "not stated"
_NAMED = 3  # losses and groups that a cell lists before it counts them


def plain(text: Any) -> str:
    """Return a text for one line of Markdown, with nothing that would end a table cell or begin a tag."""
    line = " ".join(str(text).split()).replace("\\", "\\\\")
    return line.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def base_model(recipe: Mapping[str, Any]) -> str | None:
    """Return the checkpoint that the run began from: `model.pretrained`, else the one in its options."""
    model = recipe.get("model") or {}
    options = model.get("options") or {}
    named = [model.get("pretrained"), *(options.get(key) for key in ("backbone", "language", "vision"))]
    return next((str(name) for name in named if name), None)


def source_of(recipe: Mapping[str, Any], name: str) -> str:
    """Return the data source behind an evaluation set."""
    entry = ((recipe.get("data") or {}).get("eval") or {}).get(name) or {}
    return str(entry.get("source", name))


def opening(record: Mapping[str, Any], spec: FamilySpec, results: Mapping[str, EvaluationResult]) -> list[str]:
    """Return the first lines: size, what it began from, and the first scores beside the best baseline."""
    recipe, stages = record["recipe"], record.get("stages") or []
    base = base_model(recipe)
    lines = [f"Family `{spec.name}`, {stages[-1].get('parameters') or 0:,} parameters"] if stages else []
    lines.append(
        f"Began from `{plain(base)}`" if base else "Began from random weights: all it knows is from this data"
    )
    for name, result in results.items():
        for metric in tables.headline_metrics(result)[:1]:
            others = [scores[metric] for scores in result.baselines.values() if metric in scores]
            best = (min if tables.lower_is_better(metric) else max)(others) if others else None
            beside = f"; the best baseline {tables.number(best, metric)}" if best is not None else ""
            score = tables.number(result.metrics[metric], metric)
            rows = f"{plain(name)}, {result.metrics.get('n', 0):.0f} rows"
            lines.append(f"{rows}: {tables.label(metric)} {score}{beside}")
    return lines


def loading(
    recipe: Mapping[str, Any], spec: FamilySpec, repo: str | None, what: str, code_along: bool = False
) -> list[dict[str, str]]:
    """Return ways to load the weights, for the form they are in."""
    place = repo or "outputs/<run>/final"
    base = base_model(recipe) or "<the backbone>"
    if what == "merged":
        code = f'from transformers import AutoModel, AutoProcessor\n\nmodel = AutoModel.from_pretrained("{place}")'
        code += f'\nprocessor = AutoProcessor.from_pretrained("{place}")'
        text = "The backbone alone, in transformers' own layout; hfvla is not needed."
        return [{"text": text, "kind": "python", "code": code}]
    if what == "adapter":
        code = "from peft import PeftModel\nfrom transformers import AutoModel\n\n"
        code += f'model = PeftModel.from_pretrained(AutoModel.from_pretrained("{base}"), "{place}")'
        return [{"text": "An adapter for the plain backbone; hfvla is not needed.", "kind": "python", "code": code}]
    code = f'from hfvla import load_checkpoint\n\nspec, model, processor = load_checkpoint("{place}")'
    command = f"pip install hfvla\nhfvla predict --checkpoint {place} --help"
    ways = [
        {"text": "In Python:", "kind": "python", "code": code},
        {"text": "From the command line; `eval` and `serve` take the same name:", "kind": "bash", "code": command},
    ]
    if code_along:
        code = "from transformers import AutoModel, AutoProcessor\n"
        for auto in ("model = AutoModel", "processor = AutoProcessor"):
            code += f'\n{auto}.from_pretrained("{place}", trust_remote_code=True, revision="<commit>")'
        text = "Without hfvla, with the code beside the weights; read it first, and name the commit that you read:"
        ways.append({"text": text, "kind": "python", "code": code})
    return ways


def score_section(name: str, result: EvaluationResult) -> dict[str, Any]:
    """Return one set's table: a row a metric, the model and every baseline beside it, each with its interval."""
    table = tables.headline_table(result)
    metrics = tables.headline_metrics(result)
    systems = [(label, cells) for label, cells in table.rows if len(cells) == len(metrics)]
    rows = []
    for number, metric in enumerate(metrics):
        cells = [tables.label(metric) + (" (lower is better)" if tables.lower_is_better(metric) else "")]
        for _, values in systems:
            cell = values[number]
            text = f"**{cell.text}**" if cell.best else cell.text
            cells.append(f"{text} ({cell.note})" if cell.note else text)
        rows.append([plain(cell) for cell in cells])
    return {
        "name": plain(name or "Results"),
        "columns": ["", *(plain(label) for label, _ in systems)],
        "rows": rows,
        "caption": table.caption,
        "ablations": _ablations(result),
    }


def _ablations(result: EvaluationResult) -> dict[str, Any] | None:
    table = tables.ablation_table(result)
    if table is None:
        return None
    rows = [[plain(label), *(plain(cell.text) for cell in cells)] for label, cells in table.rows]
    return {"columns": [plain(column) for column in table.columns], "rows": rows}


def index_metrics(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return the headline scores as the hub's model index has them; what is no number is left out."""
    found = []
    for metric in tables.headline_metrics(result):
        value = result.metrics[metric]
        if isinstance(value, int | float) and value == value and abs(value) != float("inf"):
            found.append({"type": metric, "value": float(value), "name": tables.label(metric)})
    return found


def recipe_section(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the words around the table of stages: seed, commit, machine, versions, and the whole recipe."""
    recipe, hardware = record["recipe"], record.get("hardware") or {}
    versions = record.get("versions") or {}
    gpus = hardware.get("gpus") or []
    machine = f"{len(gpus)} x {plain(gpus[0])}" if gpus else f"{hardware.get('cores', '?')} CPU cores, no GPU"
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
    commit = f", commit {record['commit']}" if record.get("commit") else ""
    text = f"Recipe `{plain(recipe['name'])}`, seed {record.get('seed', recipe.get('seed'))}{commit}; "
    return {
        "text": text + "`hfvla train` on the recipe below repeats it.",
        "machine": f"On {machine}, {record.get('processes', 1)} process(es). {packages}.",
        "yaml": yaml.safe_dump(_written(recipe), sort_keys=False, allow_unicode=True).strip().replace("```", "'''"),
    }


def _written(value: Any) -> Any:
    """Return a recipe without what it does not say: empty values only lengthen it."""
    if isinstance(value, Mapping):
        parts = {key: _written(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part not in (None, {}, [])}
    return [_written(part) for part in value] if isinstance(value, list) else value


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED + 1 else ""
    return ", ".join(names[: _NAMED if more else None]) + more


def stage_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a stage: what trained, how much of the model, for how long, at which cost."""
    declared = {stage["name"]: stage for stage in record["recipe"].get("stages") or []}
    rows = []
    for stage in record.get("stages") or []:
        recipe = declared.get(stage["name"], {})
        groups = [str(name) for name in recipe.get("train") or []]
        losses = [f"{name} {weight:g}" if isinstance(weight, int | float) else name
                  for name, weight in (recipe.get("losses") or {}).items()]  # fmt: skip
        all_of, trained = stage.get("parameters") or 0, stage.get("trainable_parameters") or 0
        energy = stage.get("energy") or {}
        seen = round((stage.get("epochs") or 0) * (stage.get("rows") or {}).get("train", 0))
        cells = [
            stage["name"], _listed(groups), f"{trained / all_of:.1%} of {all_of:,}" if all_of else "",
            stage.get("steps", ""), f"{stage.get('epochs') or 0:.2g}", f"{seen:,}", _listed(losses),
            f"{(stage.get('seconds') or 0) / 3600:.2f}", f"{energy['kwh']:.3g}" if energy else "not measured",
        ]  # fmt: skip
        rows.append({"cells": [plain(cell) for cell in cells]})
    return rows


def data_rows(record: Mapping[str, Any], spec: FamilySpec, results: Mapping[str, EvaluationResult]) -> list[list[str]]:
    """Return a row a source: what was found and used of it, and its licence."""
    recipe = record["recipe"]
    labels = {}
    for mixture in [recipe.get("data") or {}, *((stage.get("data") or {}) for stage in recipe.get("stages") or [])]:
        for entry in mixture.get("train") or []:
            labels[entry.get("name") or entry["source"]] = entry["source"]
    rows = []
    for label, census in (record.get("census") or {}).items():
        source = labels.get(label) or labels.get(re.sub(r"_\d+$", "", label), label)
        rows.append(_data_row(label, "training", census, spec, source))
    for name, result in results.items():
        rows.append(_data_row(name, "scores", result.census, spec, source_of(recipe, name)))
    return rows


def _data_row(label: str, use: str, census: Mapping[str, Any], spec: FamilySpec, source: str) -> list[str]:
    rejected = (census or {}).get("rejected") or {}
    counts = {key: entry.get("count") if isinstance(entry, Mapping) else entry for key, entry in rejected.items()}
    licence = spec.sources[source].licence if source in spec.sources else ""
    shown = f"{label} ({source})" if label != source else label
    reasons = "; ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"
    found = [_count((census or {}).get(key)) for key in ("found", "usable")]
    return [plain(cell) for cell in (shown, use, *found, reasons, licence or _UNKNOWN)]


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"


def calibration(record: Mapping[str, Any], results: Mapping[str, EvaluationResult]) -> str:
    """Return what was fitted after training, and how far confidences are off on each set."""
    fitted = record.get("calibration") or {}
    values = [f"{plain(key)} {value:.4g}" for key, value in fitted.items() if isinstance(value, int | float)]
    lines = [
        f"Fitted on validation rows after training: {', '.join(values)}." if values else "Nothing was calibrated."
    ]
    for name, result in results.items():
        errors = {key: result.metrics[key] for key in result.metrics if "/" not in key and "ece" in key.split("_")}
        if errors:
            shown = ", ".join(f"{tables.label(key)} {tables.number(value, key)}" for key, value in errors.items())
            lines.append(f"On {plain(name)}: {shown} (0 = a confidence of 80 % is right in 80 of 100 rows).")
    return " ".join(lines)


def energy(record: Mapping[str, Any]) -> str:
    """Return the energy of all stages, and how it was found."""
    stages = record.get("stages") or []
    found = [stage["energy"] for stage in stages if stage.get("energy")]
    if not found:
        return 'Not measured (`pip install "hfvla[track]"` brings CodeCarbon).'
    total = sum(one["kwh"] for one in found)
    parts = sorted({part for one in found for part in one.get("hardware", [])})
    co2 = [one["co2_kg"] for one in found if "co2_kg" in one]
    text = f"Training used {total:.3g} kWh ({len(found)} of {len(stages)} stages measured by CodeCarbon: "
    text += f"{plain(', '.join(parts)) or 'unknown parts'})"
    return text + (f", {sum(co2):.3g} kg CO2 on the grid of {found[0].get('country')}." if co2 else ".")


def limits(recipe: Mapping[str, Any], spec: FamilySpec, results: Mapping[str, EvaluationResult]) -> list[str]:
    """Return what a reader of the scores must know, and what the weights are not for."""
    lines = [plain(line) for line in spec.limits]
    lines.append("The scores are of the sets above and of no other data; one run, one seed.")
    if not base_model(recipe):
        lines.append("The weights began at random: words and things that the training data does not show are unknown.")
    notes = dict.fromkeys(note for result in results.values() for note in result.notes)
    return lines + [plain(note) for note in notes]


def citation(recipe: Mapping[str, Any], repo: str | None) -> str:
    """Return BibTeX of these weights and of the library."""
    title = re.sub(r"[{}\\]", "", str(recipe["name"]))
    key = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-").lower() or "model"
    url = f",\n  url = {{https://huggingface.co/{repo}}}" if repo else ""
    return (
        f"@misc{{{key},\n  title = {{{title}}},\n  note = {{{recipe['family']}, trained with hfvla}}{url}\n}}\n\n"
        "@software{hfvla,\n  title = {hfvla: staged training of vision-language(-action) models},\n"
        "  note = {Apache-2.0}\n}"
    )
