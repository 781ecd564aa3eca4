"""The model card: README.md of every `final/`, written from what the run recorded.

It is written with the checkpoint, without scores, and again after the evaluation; it is not sealed with the other
files (`hfvla.sealing`), so that it can be corrected by hand here or on the hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from hfvla.errors import DataError
from hfvla.evaluation.report_data import load_report_data
from hfvla.family import EvaluationResult, FamilySpec
from hfvla.fetching import is_hub_name
from hfvla.hub import facts
from hfvla.loading import read_object
from hfvla.registry import get_family

__all__ = ["CARD", "card_of_run", "card_text", "write_card"]

CARD = "README.md"
"""Name of the file: what the hub shows first."""


def write_card(
    folder: Path,
    record: Mapping[str, Any],
    results: Mapping[str, EvaluationResult],
    *,
    repo: str | None = None,
    what: str = "final",
    license: str | None = None,
) -> Path:
    """Write the card of a checkpoint; arguments as for `card_text`.

    Returns:
        `Path`: the file.
    """
    path, temporary = Path(folder) / CARD, Path(folder) / f".{CARD}.{os.getpid()}.tmp"
    text = card_text(record, results, repo=repo, what=what, license=license)
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    temporary.replace(path)
    return path


def card_text(
    record: Mapping[str, Any],
    results: Mapping[str, EvaluationResult],
    *,
    repo: str | None = None,
    what: str = "final",
    license: str | None = None,
    code: bool = False,
) -> str:
    """Return a model card: metadata for the hub, then what a reader must know before using the weights.

    Args:
        record: content of run.json: "recipe", "stages", "census", "calibration", "versions", "hardware" ...
        results: of the final checkpoint by evaluation set; none before it is evaluated.
        repo: name on the hub, e.g. "user/name", for the lines that load it.
        what: form of the weights beside the card: "final", "merged" or "adapter" (`hfvla.hub.forms`).
        license: of the weights; the recipe's `hub.license` when not given.
        code: whether the family's code lies beside them (`hfvla.hub.code`).
    """
    import jinja2

    recipe = record["recipe"]
    spec = get_family(recipe["family"])
    environment = jinja2.Environment(
        autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("hfvla.hub").joinpath("card.md.j2").read_text("utf-8")
    body = environment.from_string(template).render(
        title=facts.plain(recipe["name"]),
        what=f"{spec.name}: {spec.summary}. Trained with hfvla {(record.get('versions') or {}).get('hfvla', '')}.",
        opening=facts.opening(record, spec, results),
        loading=facts.loading(recipe, spec, repo, what, code),
        scores=[facts.score_section(name, result) for name, result in results.items()],
        unscored="The checkpoint was not scored: the recipe names no `data.eval`, or the run ended before it.",
        recipe=facts.recipe_section(record),
        stages=facts.stage_rows(record),
        data=facts.data_rows(record, spec, results),
        licences=facts.LICENCES,
        calibration=facts.calibration(record, results),
        energy=facts.energy(record),
        limits=facts.limits(recipe, spec, results),
        citation=facts.citation(recipe, repo),
    )
    return f"---\n{_metadata(recipe, spec, results, what, license)}---\n\n{body.strip()}\n"


def _metadata(
    recipe: Mapping[str, Any],
    spec: FamilySpec,
    results: Mapping[str, EvaluationResult],
    what: str,
    license: str | None,
) -> str:
    """Return the YAML head that the hub reads: library, tags, base model, and scores as a model index."""
    content: dict[str, Any] = {"library_name": facts.LIBRARIES[what]}
    license = license or (recipe.get("hub") or {}).get("license")
    base = facts.base_model(recipe) or ""
    base = base if "/" in base and is_hub_name(base) else ""
    content |= {"license": license} if license else {}
    content |= {"pipeline_tag": spec.pipeline_tag} if spec.pipeline_tag else {}
    content["tags"] = ["hfvla", spec.name, *(["base_model:adapter:" + base] if base and what == "adapter" else [])]
    content |= {"base_model": base} if base else {}
    entries = [
        {
            "task": {"type": spec.pipeline_tag or "other", "name": spec.summary},
            "dataset": {"name": name, "type": facts.source_of(recipe, name)},
            "metrics": facts.index_metrics(result),
        }
        for name, result in results.items()
    ]
    if entries:
        content["model-index"] = [{"name": recipe["name"], "results": entries}]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def card_of_run(folder: str | Path, **more: Any) -> str:
    """Return the card of a finished run, from its run.json and report.json.

    Args:
        folder: the run's.
        **more: `repo`, `what`, `license` and `code` of `card_text`.

    Raises:
        DataError: no run.
        CheckpointError: its run.json is damaged.
    """
    folder = Path(folder)
    path = folder / "run.json"
    if not path.is_file():
        raise DataError("no run here to write a card of", where=str(folder), expected="run.json")
    return card_text(read_object(path), _results(folder), **more)


def _results(folder: Path) -> Mapping[str, EvaluationResult]:
    files: Sequence[str] = ("report.json", "metrics.json")
    if not any((folder / name).is_file() for name in files):
        return {}
    return load_report_data(folder)[0]
