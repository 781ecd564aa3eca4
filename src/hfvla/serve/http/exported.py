"""Folders of `hfvla export` behind the server: graphs in ONNX Runtime or OpenVINO answer in the model's place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hfvla.errors import CheckpointError, HfvlaError, did_you_mean
from hfvla.export.engines import RECORD, load_engine
from hfvla.loading import guarded, read_object
from hfvla.serve.http.engine import TorchEngine

__all__ = ["ENGINES", "GraphEngine", "chosen_engine", "load_exported"]

ENGINES = {"auto": "", "pytorch": "", "onnx": "onnx", "openvino": "openvino"}
"""By the name of an engine, the format of `hfvla export` that it runs."""


def chosen_engine(checkpoint: str, engine: str) -> str:
    """Return "pytorch", "onnx" or "openvino".

    Args:
        checkpoint: folder, or a hub id.
        engine: one of `ENGINES`; "auto" goes by what the folder is.

    Raises:
        HfvlaError: no such engine.
        CheckpointError: the folder is not for that engine.
    """
    if engine not in ENGINES:
        raise HfvlaError(
            f"no such engine. {did_you_mean(engine, ENGINES)}", where="--engine", got=engine,
            expected=", ".join(ENGINES),
        )  # fmt: skip
    file = os.path.join(checkpoint, RECORD)  # pathlib raises where a name is too long for a path
    form = read_object(Path(file)).get("format") if os.path.isfile(file) else None
    found = str(form) if form in ENGINES else "pytorch"
    if engine in ("auto", found):
        return found
    if form is None:
        fix = f"Write one: hfvla export {checkpoint} --format {engine} --output DIR"
        raise CheckpointError("not a folder of `hfvla export`", where=checkpoint, expected=f"{RECORD} in it", fix=fix)
    raise CheckpointError("this export is for another engine", where=checkpoint, got=form, expected=engine)


class GraphEngine(TorchEngine):
    """A family's answers, computed by exported graphs.

    Args:
        spec: the family.
        model: of its `exported_model`.
        processor: its processor.
        facts: of the export.
    """

    def __init__(self, spec: Any, model: Any, processor: Any, facts: dict[str, Any]) -> None:
        self._known = facts
        super().__init__(spec, model, processor)

    def _facts(self) -> dict[str, Any]:
        return {**self._known, "device": "cpu", "batches": self.batches}


def load_exported(checkpoint: str, threads: int = 0) -> GraphEngine:
    """Load graphs, all of them before the first request.

    Args:
        checkpoint: folder of `hfvla export`, for ONNX Runtime or OpenVINO.
        threads: of one run; 0 for all cores.

    Raises:
        CheckpointError: it is incomplete or damaged.
        HfvlaError: graphs of this family do not answer by themselves.
    """
    from hfvla.registry import family_of_checkpoint

    folder = Path(checkpoint)
    spec, record = family_of_checkpoint(folder), read_object(folder / RECORD)
    if not spec.has("exported"):
        raise HfvlaError(
            "graphs of this family are a part of the model and do not answer alone", where=checkpoint, got=spec.name,
            fix=f"Serve the checkpoint itself: {record.get('checkpoint')}",
        )  # fmt: skip
    config = guarded(checkpoint, lambda: spec.load("config").from_pretrained(str(folder)))
    processor = guarded(checkpoint, lambda: spec.load("processor").from_pretrained(str(folder)))
    if hasattr(processor, "check_config"):
        guarded(checkpoint, lambda: processor.check_config(config))
    run = load_engine(folder, threads)
    parts = record.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, str) and part.isidentifier() for part in parts):
        raise CheckpointError("not a list of graphs", where=f"{folder / RECORD}: parts", got=parts)
    for part in parts:
        run.load(part)
    facts = {"engine": run.name, "bits": record.get("bits"), "graphs": parts}
    return GraphEngine(spec, spec.load("exported")(run, config), processor, facts)
