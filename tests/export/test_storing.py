"""Weights beside a graph that cannot hold them, here with a limit of some bytes in place of two gigabytes."""

import shutil

import numpy as np
import pytest

from hfvla.errors import CheckpointError
from hfvla.export import storing
from hfvla.export.engines import OnnxEngine
from hfvla.export.quantise import left_whole, quantise
from hfvla.export.storing import beside, graph_bytes, load_graph, save_graph

from .conftest import feed, output


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(storing, "MOST_BYTES", 4096)


def test_bytes_are_those_of_the_weights(graph):
    model = load_graph(graph / "part.onnx")
    scalars = 64 * 64 + 64 * 32 + 32 * 8 * 3 * 3 + 32
    assert graph_bytes(model) == 4 * scalars + 8 * 3  # three axes


def test_large_weights_lie_beside_the_graph_and_come_back(graph, small, monkeypatch):
    path, before = graph / "part.onnx", output(graph)
    size = path.stat().st_size
    save_graph(load_graph(path), path)
    assert path.stat().st_size < size / 10 < beside(path).stat().st_size
    np.testing.assert_array_equal(output(graph), before)
    assert graph_bytes(load_graph(path, weights=False)) == graph_bytes(load_graph(path))
    shutil.move(graph / "part.onnx.data", graph / "elsewhere")
    with pytest.raises(CheckpointError, match=r"part\.onnx: not a graph that ONNX Runtime reads"):
        output(graph)
    shutil.move(graph / "elsewhere", graph / "part.onnx.data")
    whole = load_graph(path)
    monkeypatch.setattr(storing, "MOST_BYTES", 2**30)
    save_graph(whole, path)
    assert not beside(path).exists() and path.stat().st_size == pytest.approx(size, rel=0.01)
    np.testing.assert_array_equal(output(graph), before)


@pytest.mark.parametrize(
    ("bits", "method"),
    [(16, "dynamic"), (8, "dynamic"), (8, "static"), (8, "blocks"), (8, "mixed"), (8, "weights"), (4, "dynamic")],
)
def test_fewer_bits_of_a_large_graph_are_those_of_a_small_one(graph, small, monkeypatch, bits, method):
    other = graph / "other"
    other.mkdir()
    shutil.copy(graph / "part.onnx", other)
    save_graph(load_graph(other / "part.onnx"), other / "part.onnx")
    assert beside(other / "part.onnx").is_file()
    quantise(other / "part.onnx", bits, method, [feed()])
    assert beside(other / "part.onnx").is_file() and left_whole(other / "part.onnx") == []
    assert sorted(path.name for path in other.iterdir()) == ["part.onnx", "part.onnx.data"]
    monkeypatch.setattr(storing, "MOST_BYTES", 2**30)
    quantise(graph / "part.onnx", bits, method, [feed()])
    np.testing.assert_allclose(output(other), output(graph), rtol=1e-5, atol=1e-5)
    together = sum(path.stat().st_size for path in other.iterdir())
    assert together < 1.6 * (graph / "part.onnx").stat().st_size  # nothing of the float32 weights is left behind


def test_weights_outside_of_the_folder_are_refused(graph, small):
    import onnx

    path = graph / "part.onnx"
    save_graph(load_graph(path), path)
    (graph / "inside").mkdir()
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../part.onnx.data"
    onnx.save(model, graph / "inside" / "part.onnx")
    with pytest.raises(CheckpointError, match="not a graph that ONNX Runtime reads"):
        OnnxEngine(graph / "inside", threads=1)("part", feed())
