"""Fewer bits for the weights of an ONNX graph, by ONNX Runtime.

    16           every weight as float16; inputs and outputs stay float32
    8 dynamic    weights of every matrix product and embedding as int8, inputs quantised as they come; of convolutions
                 the weights alone, which keeps their sums exact in float32
    8 static     activations, too, with ranges from calibration rows
    8 mixed      convolutions static; matrix products in blocks of 128, inputs quantised block by block as they come:
                 of products the nearest to float32, of convolutions fast and the least exact
    4            weights of every matrix product in blocks of 32 with a scale each; embeddings and convolutions in 8

A weight that stays float32 is named (`left_whole`): a transformer block that was skipped shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.errors import CheckpointError
from hfvla.export.engines import need, quieted

__all__ = ["left_whole", "quantise"]

_BLOCK, _WIDE_BLOCK = 32, 128
_SMALL = 1024  # scalars below which a weight is not worth its scales
_MATRICES, _ROW_SCALES = ("MatMul", "Gemm"), "_rows_scale"


def quantise(path: Path, bits: int, method: str = "dynamic", rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """Give one graph fewer bits, in place.

    Args:
        path: the graph.
        bits: 16, 8 or 4.
        method: "dynamic", "static", "mixed" or "weights" (they alone, for engines without the others' operators), of 8
            bits.
        rows: inputs by name that calibrate "static" and "mixed".

    Raises:
        MissingExtraError: the extra "export" is not installed.
        CheckpointError: nothing to calibrate with, or no such combination.
    """
    need("onnx", "onnxruntime", what="quantising ONNX")
    with quieted("root"):  # the quantiser advises through it
        _quantise(path, bits, method, rows)


def _quantise(path: Path, bits: int, method: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if bits == 16:
        _half(path)
    elif bits == 8 and method == "weights":
        _weights_only(path)
    elif bits == 8 and method == "dynamic":
        _embeddings(path)
        _dynamic(path, _MATRICES)
        _weights_only(path)
    elif bits == 8 and method == "static":
        _embeddings(path)
        _static(path, rows, ["Conv", *_MATRICES])
        _weights_only(path)
    elif bits == 8 and method == "mixed":
        if _has(path, "Conv"):
            _static(path, rows, ["Conv"])
        _blocks(path, 8, _WIDE_BLOCK)
        _embeddings(path)
        _weights_only(path)
    elif bits == 4:
        _blocks(path, 4, _BLOCK)
        _embeddings(path)
        _weights_only(path)
    else:
        raise CheckpointError("no such quantisation", got=f"{bits} bits, {method}", expected="16, 8 or 4 bits")


def _half(path: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(path), keep_io_types=True, disable_shape_infer=True)
    onnx.save(model, path)


def _dynamic(path: Path, operators: Sequence[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        path, path, op_types_to_quantize=list(operators), per_channel=True, weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1},
    )  # fmt: skip


def _has(path: Path, operator: str) -> bool:
    import onnx

    return any(node.op_type == operator for node in onnx.load(path).graph.node)


def _static(path: Path, rows: Sequence[Mapping[str, Any]], operators: Sequence[str]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    if not rows:
        raise CheckpointError("static quantisation needs rows to calibrate with", where=path.name)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{name: np.asarray(value) for name, value in row.items()} for row in rows])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    quantize_static(
        path, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, op_types_to_quantize=list(operators),
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1},
    )  # fmt: skip


def _blocks(path: Path, bits: int, size: int) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = _without_gemm(onnx.load(path))
    with quieted("onnxruntime.quantization.matmul_nbits_quantizer"):
        quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=size, is_symmetric=True, accuracy_level=4)
        quantizer.process()
    onnx.save(quantizer.model.model, path)


def _without_gemm(model: Any) -> Any:
    """Write products with a bias as a product and a sum: those alone are quantised in blocks."""
    import onnx
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA")
        if node.op_type != "Gemm" or node.input[1] not in weights or not plain:
            continue
        weight = node.input[1]
        if given.get("transB"):
            turned = f"{weight}_turned"
            if turned not in weights:
                value = np.ascontiguousarray(numpy_helper.to_array(weights[weight]).T)
                weights[turned] = numpy_helper.from_array(value, turned)
                graph.initializer.append(weights[turned])
            weight = turned
        place, out = list(graph.node).index(node), node.output[0]
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{out}_product" if biased else out
        graph.node.remove(node)
        graph.node.insert(place, helper.make_node("MatMul", [node.input[0], weight], [product], name=f"{out}_product"))
        if biased:
            graph.node.insert(place + 1, helper.make_node("Add", [product, node.input[2]], [out], name=f"{out}_sum"))
    used = {name for node in graph.node for name in node.input}
    for tensor in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(tensor)
    onnx.checker.check_model(model)
    return model


def _embeddings(path: Path) -> None:
    """Store tables that rows are looked up in as int8 with a scale a row; the rows that are found are multiplied.

    ONNX Runtime's own has one scale for a whole table, so that its largest word decides how fine all others are.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    tables = {
        tensor.name: tensor for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and int(np.prod(tensor.dims)) >= _SMALL
    }  # fmt: skip
    stored: set[str] = set()
    for node in list(graph.node):
        axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
        if node.op_type != "Gather" or axis != 0 or node.input[0] not in tables:
            continue
        name, out = node.input[0], node.output[0]
        if name not in stored:
            value = numpy_helper.to_array(tables[name])
            scale, rounded = _rounded(value)
            graph.initializer.append(numpy_helper.from_array(rounded, f"{name}_rows_int8"))
            graph.initializer.append(numpy_helper.from_array(scale.reshape(-1, 1), f"{name}{_ROW_SCALES}"))
            stored.add(name)
        added = [
            helper.make_node("Gather", [f"{name}_rows_int8", node.input[1]], [f"{out}_int8"], axis=0),
            helper.make_node("Gather", [f"{name}{_ROW_SCALES}", node.input[1]], [f"{out}_scale"], axis=0),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ]
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for offset, one in enumerate(added):
            graph.node.insert(place + offset, one)
    used = {name for node in graph.node for name in node.input}
    for name in stored - used:
        graph.initializer.remove(tables[name])
    onnx.save(model, path)


def _rounded(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a scale for each first axis, and int8 weights."""
    scale = np.abs(value.reshape(len(value), -1)).max(1) / 127.0
    scale = np.where(scale == 0, 1.0, scale).astype(np.float32)
    spread = scale.reshape(-1, *[1] * (value.ndim - 1))
    return scale, np.clip(np.round(value / spread), -127, 127).astype(np.int8)


def _weights_only(path: Path) -> None:
    """Store what is still float32 and large as int8 with a scale for each first axis; it is computed in float32."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph, added = model.graph, []
    for tensor in _large(graph):
        scale, rounded = _rounded(numpy_helper.to_array(tensor))
        name = tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.extend(
            [
                numpy_helper.from_array(rounded, f"{name}_int8"),
                numpy_helper.from_array(scale, f"{name}_scale"),
                numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}_zero"),
            ]
        )
        parts = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
        added.append(helper.make_node("DequantizeLinear", parts, [name], name=f"{name}_dequantise", axis=0))
    for node in reversed(added):
        graph.node.insert(0, node)
    onnx.save(model, path)


def left_whole(path: Path) -> list[str]:
    """Return the weights of a graph that are float32 and large: what no quantisation reached."""
    import onnx

    return [tensor.name for tensor in _large(onnx.load(path).graph)]


def _large(graph: Any) -> list[Any]:
    """Return the weights of a graph that are float32 and large; scales of others, which must stay as they are, not."""
    from onnx import TensorProto

    scales = {name for node in graph.node if node.op_type == "MatMulNBits" for name in node.input[1:]}
    scales |= {tensor.name for tensor in graph.initializer if tensor.name.endswith(_ROW_SCALES)}
    return [
        tensor for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2 and int(np.prod(tensor.dims)) >= _SMALL
        and tensor.name not in scales
    ]  # fmt: skip
