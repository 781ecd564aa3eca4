"""`hfvla export`: a checkpoint as ONNX or OpenVINO graphs or as a plain backbone, checked on rows before it counts."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfvla.errors import HfvlaError, RecipeError
from hfvla.evaluation.report import write_report
from hfvla.evaluation.report_data import plain_json
from hfvla.export.engines import RECORD, OnnxEngine, OpenVinoEngine, TorchEngine
from hfvla.export.graphs import write_onnx, write_openvino
from hfvla.export.merged import write_merged
from hfvla.export.parity import check_parity, compare_engines, parity_figure
from hfvla.export.quantise import left_whole, quantise
from hfvla.family import ExportPlan, FamilySpec, resolve
from hfvla.outputs import claim_new_folder
from hfvla.registry import load_checkpoint

__all__ = ["FORMATS", "METHODS", "Recorder", "export_checkpoint"]

logger = logging.getLogger(__name__)

FORMATS: Mapping[str, tuple[int, ...]] = {"onnx": (32, 16, 8, 4), "openvino": (32, 16, 8), "merged": (32, 16, 8, 4)}
"""Bits that each format has."""

METHODS = ("dynamic", "static", "blocks", "mixed")
"""Ways to 8 bits in ONNX; "static" and "mixed" calibrate with the first rows."""

_CALIBRATION_ROWS = 32


def export_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    *,
    format: str = "onnx",
    bits: int = 32,
    method: str = "blocks",
    data: str | None = None,
    rows: int = 64,
    least: float = 0.995,
    threads: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Write a checkpoint for another program, and compare both on rows; nothing is left of one that fails.

    Args:
        checkpoint: folder, or a hub id.
        output: new folder.
        format: one of `FORMATS`.
        bits: of the weights.
        method: of 8 bits in ONNX, one of `METHODS`.
        data: rows to compare on, "SOURCE" or "SOURCE:key=value"; default: the family's small example rows.
        rows: how many of them.
        least: share of rows that both must decide alike.
        threads: of the exported engine; 0 for all cores.
        seed: of generated rows and resamples.

    Returns:
        `dict`: parity.json's content: "format", "bits", "family", "parts", "left_whole", and what
        `compare_engines` found.

    Raises:
        HfvlaError: no such combination, the family has no graphs, the export fails, or it answers otherwise.
    """
    _check_asked(format, bits, method, least)
    target = claim_new_folder(output)
    spec, model, processor = load_checkpoint(checkpoint)
    if not spec.has("export"):
        raise HfvlaError("this family has no graphs", where=str(checkpoint), got=spec.name)
    chosen = _rows(spec, data, rows, seed)
    plan: ExportPlan = spec.load("export")(model, processor)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        facts = {"format": format, "bits": bits, "family": spec.name, "checkpoint": str(checkpoint)}
        facts |= {"method": method} if format == "onnx" and bits == 8 else {}
        facts |= {"parts": [part.name for part in plan.parts], "data": data or "examples", "seed": seed}
        reference = TorchEngine(plan.parts)
        if format == "merged":
            candidate, more = write_merged(spec, model, processor, temporary, bits)
        else:
            calibration = Recorder(reference)
            if method in ("static", "mixed") and bits == 8:
                plan.answer(calibration, chosen[:_CALIBRATION_ROWS])
            candidate, more = _write_graphs(plan, temporary, format, bits, method, calibration.rows, threads)
            processor.save_pretrained(temporary)
            model.config.save_pretrained(temporary)
        before = sum(value.numel() * value.element_size() for value in model.state_dict().values())
        found = compare_engines(plan, reference, candidate, chosen, sizes=(before, _bytes(temporary)), seed=seed)
        result = {**facts, **more, **found}
        check_parity(found, plan, bits, least, target)
        _write_records(temporary, facts, result)
        if target.is_dir():
            target.rmdir()
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    logger.info("wrote %s", target)
    return {**result, "output": str(target)}


def _check_asked(format: str, bits: int, method: str, least: float) -> None:
    if format not in FORMATS or bits not in FORMATS[format]:
        known = "; ".join(f"{name}: {', '.join(map(str, widths))}" for name, widths in FORMATS.items())
        raise HfvlaError("no such format or bits", got=f"--format {format} --bits {bits}", expected=known)
    if method not in METHODS:
        raise HfvlaError("no such method", where="--method", got=method, expected=", ".join(METHODS))
    if not 0 <= least <= 1:
        raise HfvlaError("not a share of rows", where="--least", got=least, expected="0 to 1")


def _rows(spec: FamilySpec, data: str | None, count: int, seed: int) -> list[Mapping[str, Any]]:
    """Return the rows that both engines answer.

    Raises:
        RecipeError: no such source, or options that it refuses.
        HfvlaError: there are none.
    """
    if data is None:
        found = spec.load("examples")(count, seed)
    else:
        from hfvla.recipe import build_options, parse_data_argument

        name, entry = parse_data_argument(data)
        options = build_options(spec, name, {k: v for k, v in entry.items() if k != "source"}, where=f"--data {name}")
        found = resolve(spec.source(name).build)(options, seed=seed).dataset
    chosen = [found[number] for number in range(min(count, len(found)))]
    if not chosen:
        raise RecipeError(f"--data {data}: there are no rows to compare on")
    return chosen


class Recorder:
    """An engine that keeps what each part was given, to calibrate with.

    Args:
        engine: that runs the parts.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.rows: dict[str, list[Mapping[str, Any]]] = {}

    def __call__(self, part: str, inputs: Mapping[str, Any]) -> Any:
        """Keep the inputs and run the part."""
        self.rows.setdefault(part, []).append(dict(inputs))
        return self.engine(part, inputs)


def _write_graphs(
    plan: ExportPlan,
    folder: Path,
    format: str,
    bits: int,
    method: str,
    calibration: Mapping[str, Sequence[Mapping[str, Any]]],
    threads: int,
) -> tuple[Any, dict[str, Any]]:
    """Write the graphs and return their engine, and which weights stayed whole."""
    source = folder if format == "onnx" else folder / "source"
    source.mkdir(exist_ok=True)
    write_onnx(plan.parts, source)
    whole: dict[str, list[str]] = {}
    for part in plan.parts if bits < 32 and not (format == "openvino" and bits == 16) else ():
        path = source / f"{part.name}.onnx"
        way = "weights" if format == "openvino" else method
        quantise(path, bits, way, calibration.get(part.name, ())[:_CALIBRATION_ROWS])
        if bits < 16:
            whole[part.name] = left_whole(path)
    if format == "onnx":
        return OnnxEngine(folder, threads), {"left_whole": whole}
    write_openvino(plan.parts, source, folder, half=bits == 16)
    shutil.rmtree(source)
    return OpenVinoEngine(folder, threads), {"left_whole": whole}


def _bytes(folder: Path) -> int:
    kinds = (".onnx", ".data", ".xml", ".bin", ".safetensors")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in kinds)


def _write_records(folder: Path, facts: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    (folder / RECORD).write_text(json.dumps(plain_json(facts), indent=2) + "\n", encoding="utf-8")
    (folder / "parity.json").write_text(json.dumps(plain_json(result), indent=2) + "\n", encoding="utf-8")
    title = f"Export: {result['family']}, {result['format']}, {result['bits']} bits"
    write_report(folder / "report.html", title, {}, facts, [parity_figure(result)])
