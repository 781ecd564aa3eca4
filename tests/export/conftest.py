"""A small graph made by hand: words, a product and a convolution."""

import numpy as np
import pytest

from hfvla.export.engines import OnnxEngine


@pytest.fixture
def graph(tmp_path):
    """ids -> embedding -> mean -> product -> output, and a picture through a convolution to the same sum."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def weight(name, *shape):
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    weights = [weight("words", 64, 64), weight("product", 64, 32), weight("kernel", 32, 8, 3, 3), weight("bias", 32)]
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    first = numpy_helper.from_array(np.array([1]), "first")
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["embedded"]),
        helper.make_node("ReduceMean", ["embedded", "first"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "product"], ["text"]),
        helper.make_node("Conv", ["picture", "kernel", "bias"], ["map"]),
        helper.make_node("ReduceMean", ["map", "axes"], ["image"], keepdims=0),
        helper.make_node("Add", ["text", "image"], ["out"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("ids", TensorProto.INT64, ["B", "T"]), value("picture", TensorProto.FLOAT, ["B", 8, 6, 6])]
    made = helper.make_graph(nodes, "g", inputs, [value("out", TensorProto.FLOAT, ["B", 32])], [*weights, axes, first])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "part.onnx")
    return tmp_path


def feed():
    rng = np.random.default_rng(1)
    return {"ids": np.arange(12).reshape(2, 6), "picture": rng.normal(size=(2, 8, 6, 6)).astype(np.float32)}


def output(folder):
    return OnnxEngine(folder, threads=1)("part", feed())["out"]
