"""Writes a model's parts as ONNX graphs, and as OpenVINO's."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hfvla.errors import CheckpointError
from hfvla.export import storing
from hfvla.export.engines import need, quieted
from hfvla.family import ExportPart

__all__ = ["OPSET", "write_onnx", "write_openvino"]

logger = logging.getLogger(__name__)

OPSET = 20
"""Version of ONNX's operators: the first with Gelu."""


def write_onnx(parts: Iterable[ExportPart], folder: Path) -> None:
    """Write `<part>.onnx` for every part, by torch's exporter (`dynamo=True`).

    Weights that a graph cannot hold lie in `<part>.onnx.data` beside it (`hfvla.export.storing`).

    Args:
        parts: of an `ExportPlan`; on the CPU, float32.
        folder: exists.

    Raises:
        MissingExtraError: the extra "export" is not installed.
        CheckpointError: a part cannot be traced.
    """
    need("onnx", "onnxscript", what="the export to ONNX")
    import torch

    for part in parts:
        shared: dict[str, Any] = {}
        shapes = {
            name: {axis: _axis(label, shared) for axis, label in part.dynamic.get(name, {}).items()}
            for name in part.inputs
        }
        try:
            with _quiet(), torch.no_grad():
                torch.onnx.export(
                    part.module, (), str(folder / f"{part.name}.onnx"), kwargs=dict(part.inputs), dynamo=True,
                    input_names=list(part.inputs), output_names=list(part.outputs), dynamic_shapes=shapes,
                    opset_version=OPSET, external_data=_weight_bytes(part) > storing.MOST_BYTES, verbose=False,
                )  # fmt: skip
        except Exception as error:  # the exporter's own classes change between versions
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise CheckpointError(
                "this part cannot be exported", where=part.name, got=f"{type(error).__name__}: {reason}"[:300]
            ) from error
        size = sum(path.stat().st_size for path in folder.glob(f"{part.name}.onnx*"))
        logger.info("wrote %s.onnx, %.1f MB", part.name, size / 1e6)


def _weight_bytes(part: ExportPart) -> int:
    """Return what a part's weights take in its graph, or a little more: tied ones count once, unused ones too."""
    tensors = [*part.module.parameters(), *part.module.buffers()]
    return sum(one.numel() * one.element_size() for one in tensors)


def _axis(label: str, shared: dict[str, Any]) -> Any:
    import torch

    return shared.setdefault(label, torch.export.Dim.DYNAMIC)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its steps and warns of what it decides; what fails is raised."""
    with quieted("torch.onnx", "onnxscript", "onnx_ir"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            yield


def write_openvino(parts: Iterable[ExportPart], source: Path, folder: Path, *, half: bool) -> None:
    """Turn `<part>.onnx` into `<part>.xml` and `<part>.bin`.

    Args:
        parts: of an `ExportPlan`.
        source: folder of the ONNX graphs.
        folder: exists.
        half: store weights in 16 bits; they are computed with in 32.

    Raises:
        MissingExtraError: the extra "export" is not installed.
        CheckpointError: OpenVINO cannot read a graph.
    """
    need("openvino", what="the export to OpenVINO")
    import openvino

    for part in parts:
        try:
            model = openvino.convert_model(str(source / f"{part.name}.onnx"))
            openvino.save_model(model, str(folder / f"{part.name}.xml"), compress_to_fp16=half)
        except Exception as error:
            raise CheckpointError(
                "OpenVINO cannot take this part", where=part.name, got=str(error).splitlines()[0][:300]
            ) from error
