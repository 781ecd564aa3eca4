"""Fewer bits for small graphs made by hand: what is quantised, what is not, and how far it moves the result."""

import numpy as np
import pytest

from hfvla.errors import CheckpointError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from hfvla.export.engines import OnnxEngine  # noqa: E402
from hfvla.export.quantise import left_whole, quantise  # noqa: E402

from .conftest import feed, output  # noqa: E402


@pytest.mark.parametrize(
    ("bits", "method", "most"),
    [
        (16, "dynamic", 0.02),
        (8, "dynamic", 0.15),
        (8, "static", 0.15),
        (8, "blocks", 0.12),
        (8, "mixed", 0.15),
        (8, "weights", 0.1),
        (4, "dynamic", 1.5),
    ],
)
def test_every_weight_is_reached_and_the_result_stays_near(graph, bits, method, most):
    before, size = output(graph), (graph / "part.onnx").stat().st_size
    assert left_whole(graph / "part.onnx") == ["words", "product", "kernel"]
    quantise(graph / "part.onnx", bits, method, [feed()])
    assert left_whole(graph / "part.onnx") == []
    away = np.abs(output(graph) - before).max()
    assert 0 < away < most, away
    assert (graph / "part.onnx").stat().st_size < size * (0.6 if bits == 16 else 0.45)


@pytest.mark.parametrize("method", ["dynamic", "static", "mixed"])
def test_no_product_can_be_cut_off_where_a_cpu_adds_in_16_bits(graph, method):
    """A signed weight of 127 times an unsigned input of 255, twice, is more than 16 bits hold: AVX2 without VNNI."""
    from onnx import TensorProto

    quantise(graph / "part.onnx", 8, method, [feed()])
    model = onnx.load(graph / "part.onnx").graph
    types = {one.name: one.data_type for one in model.initializer}
    made = {name: node for node in model.node for name in node.output}
    found = []
    for node in model.node:
        if node.op_type in ("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul"):
            found.append(types[node.input[1]])
        elif node.op_type in ("Conv", "MatMul", "Gemm") and node.input[0] in made and node.input[1] in made:
            inputs, weights = made[node.input[0]], made[node.input[1]]
            if inputs.op_type == weights.op_type == "DequantizeLinear":
                found.append(types[weights.input[0]])
    assert found and set(found) == {TensorProto.UINT8}


def test_products_with_a_bias_are_quantised_in_blocks_too(tmp_path):
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
               for name, shape in (("turned", (48, 64)), ("bias", (48,)), ("plain", (48, 32)))]  # fmt: skip
    nodes = [helper.make_node("Gemm", ["in", "turned", "bias"], ["middle"], transB=1),
             helper.make_node("Gemm", ["middle", "plain"], ["out"])]  # fmt: skip
    value = helper.make_tensor_value_info
    inputs, outputs = [value("in", TensorProto.FLOAT, ["B", 64])], [value("out", TensorProto.FLOAT, ["B", 32])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights),
                              opset_imports=[helper.make_opsetid("", 20)], ir_version=10)  # fmt: skip
    given = {"in": rng.normal(size=(3, 64)).astype(np.float32)}
    onnx.save(model, tmp_path / "part.onnx")
    before = OnnxEngine(tmp_path, threads=1)("part", given)["out"]
    for bits, method, most in ((8, "mixed", 0.02), (4, "dynamic", 0.2)):
        onnx.save(model, tmp_path / "part.onnx")
        quantise(tmp_path / "part.onnx", bits, method)
        assert [node.op_type for node in onnx.load(tmp_path / "part.onnx").graph.node].count("MatMulNBits") == 2
        away = np.abs(OnnxEngine(tmp_path, threads=1)("part", given)["out"] - before).max()
        assert 0 < away < most * np.abs(before).max()


@pytest.mark.parametrize(("bits", "method", "most"), [(8, "mixed", 0.02), (4, "dynamic", 0.25)])
def test_scales_of_large_weights_are_not_quantised_themselves(tmp_path, bits, method, most):
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    words = numpy_helper.from_array(rng.normal(size=(2048, 1024)).astype(np.float32), "words")
    product = numpy_helper.from_array(rng.normal(size=(1024, 256)).astype(np.float32), "product")
    nodes = [helper.make_node("Gather", ["words", "ids"], ["found"]),
             helper.make_node("MatMul", ["found", "product"], ["out"])]  # fmt: skip
    value = helper.make_tensor_value_info
    inputs, outputs = [value("ids", TensorProto.INT64, ["B"])], [value("out", TensorProto.FLOAT, ["B", 256])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, [words, product]),
                              opset_imports=[helper.make_opsetid("", 20)], ir_version=10)  # fmt: skip
    onnx.save(model, tmp_path / "part.onnx")
    given = {"ids": np.array([3, 2000])}
    before = OnnxEngine(tmp_path, threads=1)("part", given)["out"]
    quantise(tmp_path / "part.onnx", bits, method)
    assert left_whole(tmp_path / "part.onnx") == []
    after = OnnxEngine(tmp_path, threads=1)("part", given)["out"]
    assert 0 < np.abs(after - before).mean() < most * np.abs(before).mean()


def test_weights_alone_are_rounded_to_a_scale_a_row(graph):
    from onnx import numpy_helper

    quantise(graph / "part.onnx", 8, "weights")
    found = {one.name: numpy_helper.to_array(one) for one in onnx.load(graph / "part.onnx").graph.initializer}
    words = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)  # drawn first
    # A row's scale is its largest weight over 127; the stored number times the scale is half a step away at most.
    scale = np.abs(words).max(1) / 127
    assert found["words_scale"] == pytest.approx(scale, rel=1e-6) and found["words_int8"].dtype == np.int8
    assert np.abs(found["words_int8"] * scale[:, None] - words).max() <= scale.max() / 2 + 1e-6
    assert "bias" in found  # too small to be worth a scale


def test_refusals(graph):
    with pytest.raises(CheckpointError, match="static quantisation needs rows to calibrate with"):
        quantise(graph / "part.onnx", 8, "static", [])
    with pytest.raises(CheckpointError, match="no such quantisation; got '3 bits, dynamic'"):
        quantise(graph / "part.onnx", 3)
    with pytest.raises(CheckpointError, match=r"absent\.onnx: no such part in this export"):
        OnnxEngine(graph)("absent", {})
    (graph / "torn.onnx").write_bytes((graph / "part.onnx").read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"torn\.onnx: not a graph that ONNX Runtime reads"):
        OnnxEngine(graph)("torn", {})
