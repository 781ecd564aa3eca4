"""Engines that run a model's parts: torch, ONNX Runtime, OpenVINO; each takes tensors by name and returns arrays."""

from __future__ import annotations

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.errors import CheckpointError, MissingExtraError
from hfvla.family import ExportPart
from hfvla.loading import read_object

__all__ = ["OnnxEngine", "OpenVinoEngine", "TorchEngine", "load_engine", "need", "quieted"]

RECORD = "export.json"
"""What an exported folder says of itself."""

_KEPT_TIMES = 4096


def need(*packages: str, what: str) -> None:
    """Refuse work whose packages are not installed.

    Raises:
        MissingExtraError: naming the first.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(package, "export", what)


@contextlib.contextmanager
def quieted(*names: str) -> Iterator[None]:
    """Let other libraries' loggers tell errors only, for as long as the block runs; "root" is everybody's."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in before:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


class _Timed(ABC):
    """Counts the seconds of each part's last runs: a server runs them for months."""

    def __init__(self) -> None:
        self.seconds: dict[str, deque[float]] = {}

    def __call__(self, part: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run one part; see `hfvla.family.exporting.RunPart`."""
        started = time.perf_counter()
        found = self._run(part, inputs)
        self.seconds.setdefault(part, deque(maxlen=_KEPT_TIMES)).append(time.perf_counter() - started)
        return found

    def load(self, part: str) -> None:  # noqa: B027
        """Load a part now, not when it is first run.

        Raises:
            CheckpointError: there is no such part, or it cannot be read.
        """

    @abstractmethod
    def _run(self, part: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run one part."""


class TorchEngine(_Timed):
    """The parts as they are.

    Args:
        parts: of an `ExportPlan`.
    """

    name = "torch"

    def __init__(self, parts: Iterable[ExportPart]) -> None:
        super().__init__()
        self.parts = {part.name: part for part in parts}

    def _run(self, part: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode():
            found = self.parts[part].module(**{name: torch.as_tensor(value) for name, value in inputs.items()})
        return {name: value.float().numpy() for name, value in zip(self.parts[part].outputs, found, strict=True)}


class OnnxEngine(_Timed):
    """ONNX Runtime on the CPU.

    Args:
        folder: with `<part>.onnx`.
        threads: of one run; 0 for all cores.
    """

    name = "onnxruntime"

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        need("onnxruntime", what="running ONNX")
        super().__init__()
        self.folder, self.threads = Path(folder), threads
        self.sessions: dict[str, Any] = {}

    def session(self, part: str) -> Any:
        """Return a part's session, loaded when it is first asked for.

        Raises:
            CheckpointError: there is no such file, or it is no ONNX graph.
        """
        if part not in self.sessions:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.log_severity_level = 3
            # A pool of threads that waits in a loop for its part takes the cores from everything else there.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            path = self.folder / f"{part}.onnx"
            if not path.is_file():
                raise CheckpointError("no such part in this export", where=str(path), got=part)
            try:
                self.sessions[part] = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime's classes have no base of their own
                raise CheckpointError(
                    "not a graph that ONNX Runtime reads", where=str(path), got=str(error).splitlines()[0][:200]
                ) from error
        return self.sessions[part]

    def load(self, part: str) -> None:
        """Load a part now."""
        self.session(part)

    def _run(self, part: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        session = self.session(part)
        feeds = {one.name: _array(inputs[one.name], one.type) for one in session.get_inputs()}
        return dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds), strict=True))


class OpenVinoEngine(_Timed):
    """OpenVINO on the CPU.

    Args:
        folder: with `<part>.xml` and `<part>.bin`.
        threads: of one run; 0 for all cores.
    """

    name = "openvino"

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        need("openvino", what="running OpenVINO")
        super().__init__()
        self.folder, self.threads = Path(folder), threads
        self.compiled: dict[str, Any] = {}

    def _model(self, part: str) -> Any:
        if part not in self.compiled:
            import openvino

            path = self.folder / f"{part}.xml"
            if not path.is_file():
                raise CheckpointError("no such part in this export", where=str(path), got=part)
            settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
            settings |= {"INFERENCE_NUM_THREADS": self.threads} if self.threads else {}
            try:
                self.compiled[part] = openvino.Core().compile_model(str(path), "CPU", settings)
            except RuntimeError as error:
                raise CheckpointError(
                    "not a model that OpenVINO reads", where=str(path), got=str(error).splitlines()[0][:200]
                ) from error
        return self.compiled[part]

    def load(self, part: str) -> None:
        """Load a part now."""
        self._model(part)

    def _run(self, part: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        model = self._model(part)
        feeds = {one.get_any_name(): _array(inputs[one.get_any_name()]) for one in model.inputs}
        found = model(feeds)
        return {one.get_any_name(): np.array(found[one]) for one in model.outputs}


def _array(value: Any, kind: str = "") -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.float16) if kind == "tensor(float16)" else np.ascontiguousarray(array)


def load_engine(folder: str | Path, threads: int = 0) -> Any:
    """Return the engine of an exported folder.

    Raises:
        CheckpointError: `hfvla export` did not write it, or not for an engine.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise CheckpointError("not a folder of `hfvla export`", where=str(folder), expected=f"{RECORD} in it")
    form = read_object(folder / RECORD).get("format")
    engines: dict[Any, Any] = {"onnx": OnnxEngine, "openvino": OpenVinoEngine}
    if form not in engines:
        raise CheckpointError("this export has no graphs to run", where=str(folder), got=form)
    return engines[form](folder, threads)
