"""Reads and writes ONNX graphs of any size: weights lie in the graph, or beside it where a graph cannot hold them.

A file of protobuf ends at 2 GiB. Weights of larger graphs lie in `<part>.onnx.data`, which ONNX Runtime and OpenVINO
find by the name that the graph says; both files move together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MOST_BYTES", "beside", "graph_bytes", "load_graph", "rewritten", "save_graph"]

MOST_BYTES = 2**31 - 2**26
"""Weights that a graph may hold: protobuf's limit, less what nodes, names and shapes need."""

_SMALL_TENSOR = 1024  # bytes; shapes and axes stay in the graph, where shape inference reads them


def beside(path: Path) -> Path:
    """Return the file of a graph's weights, which need not be there."""
    return path.with_name(f"{path.name}.data")


def graph_bytes(model: Any) -> int:
    """Return the bytes of a graph's weights, loaded or not; those of less than a byte count as one."""
    from onnx import helper

    return sum(
        int(np.prod(one.dims, dtype=np.int64)) * int(helper.tensor_dtype_to_np_dtype(one.data_type).itemsize)
        for one in model.graph.initializer
    )


def load_graph(path: Path, *, weights: bool = True) -> Any:
    """Return a graph, its weights too unless `weights` is False."""
    import onnx

    return onnx.load(path, load_external_data=weights)


def save_graph(model: Any, path: Path) -> None:
    """Write a graph whose weights are loaded, in place of what lies there."""
    import onnx

    large = graph_bytes(model) > MOST_BYTES
    beside(path).unlink(missing_ok=True)  # onnx would append to it
    if large:
        onnx.save_model(
            model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=beside(path).name,
            size_threshold=_SMALL_TENSOR,
        )  # fmt: skip
    else:
        onnx.save_model(model, path)


def rewritten(path: Path, write: Callable[[Path, bool], None]) -> None:
    """Let a function of ONNX Runtime that writes a new file change a graph in place.

    Args:
        path: the graph.
        write: takes the new file, in an empty folder beside it, and whether weights must lie beside that.
    """
    large = graph_bytes(load_graph(path, weights=False)) > MOST_BYTES
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        new = Path(name) / path.name
        write(new, large)
        save_graph(load_graph(new), path)
