"""Fewer bits for the weights of an ONNX graph, by ONNX Runtime.

    16           every weight as float16; inputs and outputs stay float32
    8 dynamic    weights of every matrix product and embedding as int8, inputs quantised as they come; of convolutions
                 the weights alone, which keeps their sums exact in float32
    8 static     activations, too, with ranges from calibration rows
    8 blocks     matrix products in blocks of 128, inputs quantised block by block as they come; convolutions as
                 float16, computed in float32: the nearest to it
    8 mixed      as blocks, and convolutions static
    4            weights of every matrix product in blocks of 32 with a scale each; embeddings and convolutions in 8

A weight that stays float32 is named (`left_whole`): a transformer block that was skipped shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.errors import CheckpointError
from hfvla.export import storing
from hfvla.export.engines import need, quieted
from hfvla.export.storing import graph_bytes, load_graph, rewritten, save_graph

__all__ = ["left_whole", "quantise"]

_BLOCK, _WIDE_BLOCK = 32, 128
_SMALL = 1024  # scalars below which a weight is not worth its scales
# Weights are unsigned around 128: signed ones, ONNX Runtime's default, are summed by two in 16 bits where a CPU has no
# VNNI (AVX2 alone), and what does not fit there is cut off in silence.
_OPTIONS = {"MatMulConstBOnly": True, "DefaultTensorType": 1, "WeightSymmetric": True}
_MATRICES, _DOMAIN, _SPREAD = ("MatMul", "Gemm"), "com.microsoft", "_spread"


def quantise(path: Path, bits: int, method: str = "dynamic", rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """Give one graph fewer bits, in place.

    Args:
        path: the graph.
        bits: 16, 8 or 4.
        method: "dynamic", "static", "blocks", "mixed" or "weights" (they alone, for engines without the others'
            operators), of 8 bits.
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
        _weights_only(path, standard=True)
    elif bits == 8 and method == "dynamic":
        _embeddings(path)
        _dynamic(path, _MATRICES)
        _weights_only(path)
    elif bits == 8 and method == "static":
        _embeddings(path)
        _static(path, rows, ["Conv", *_MATRICES])
        _weights_only(path)
    elif bits == 8 and method in ("blocks", "mixed"):
        if method == "mixed" and _has(path, "Conv"):
            _static(path, rows, ["Conv"])
        _blocks(path, 8, _WIDE_BLOCK)
        _embeddings(path)
        if method == "mixed":
            _weights_only(path)
        else:
            _halves(path)
    elif bits == 4:
        _blocks(path, 4, _BLOCK)
        _embeddings(path)
        _weights_only(path)
    else:
        raise CheckpointError("no such quantisation", got=f"{bits} bits, {method}", expected="16, 8 or 4 bits")


def _half(path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    save_graph(convert_float_to_float16(load_graph(path), keep_io_types=True, disable_shape_infer=True), path)


def _dynamic(path: Path, operators: Sequence[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    rewritten(path, lambda new, beside: quantize_dynamic(
        path, new, op_types_to_quantize=list(operators), per_channel=True, weight_type=QuantType.QUInt8,
        use_external_data_format=beside, extra_options=_OPTIONS,
    ))  # fmt: skip


def _has(path: Path, operator: str) -> bool:
    return any(node.op_type == operator for node in load_graph(path, weights=False).graph.node)


def _static(path: Path, rows: Sequence[Mapping[str, Any]], operators: Sequence[str]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    if not rows:
        raise CheckpointError("static quantisation needs rows to calibrate with", where=path.name)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{name: np.asarray(value) for name, value in row.items()} for row in rows])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    rewritten(path, lambda new, beside: quantize_static(
        path, new, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QUInt8, op_types_to_quantize=list(operators), use_external_data_format=beside,
        extra_options=_OPTIONS,
    ))  # fmt: skip


def _blocks(path: Path, bits: int, size: int) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = _without_gemm(load_graph(path))
    with quieted("onnxruntime.quantization.matmul_nbits_quantizer"):
        quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=size, is_symmetric=True, accuracy_level=4)
        quantizer.process()
    save_graph(quantizer.model.model, path)


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
    if graph_bytes(model) <= storing.MOST_BYTES:  # what is larger cannot be handed to it
        onnx.checker.check_model(model)
    return model


def _embeddings(path: Path) -> None:
    """Store tables that rows are looked up in as int8 in blocks with a scale each; what is found is multiplied.

    The operator is ONNX Runtime's; its quantiser makes it for 4 bits only ("Gather only supports 4 bits").
    """
    from onnx import TensorProto, helper, numpy_helper

    model = load_graph(path)
    graph = model.graph
    tables = {
        tensor.name: tensor for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and int(np.prod(tensor.dims)) >= _SMALL
    }  # fmt: skip
    stored: set[str] = set()
    for place, node in enumerate(graph.node):
        axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
        if node.op_type != "Gather" or axis != 0 or node.input[0] not in tables:
            continue
        name = node.input[0]
        if name not in stored:
            scales, rounded = _rounded_in_blocks(numpy_helper.to_array(tables[name]), _WIDE_BLOCK)
            graph.initializer.append(numpy_helper.from_array(rounded, f"{name}_uint8"))
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
            stored.add(name)
        graph.node[place].CopyFrom(helper.make_node(
            "GatherBlockQuantized", [f"{name}_uint8", node.input[1], f"{name}_scales"], [node.output[0]],
            name=node.name, domain=_DOMAIN, bits=8, block_size=_WIDE_BLOCK, gather_axis=0, quantize_axis=1,
        ))  # fmt: skip
    if stored and not any(one.domain == _DOMAIN for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    used = {name for node in graph.node for name in node.input}
    for name in stored - used:
        graph.initializer.remove(tables[name])
    save_graph(model, path)


def _rounded_in_blocks(table: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scales [rows, blocks] and the table as uint8 whose zero is 128; a row's last block may be shorter."""
    starts = np.arange(0, table.shape[1], size)
    scales = np.maximum.reduceat(np.abs(table), starts, axis=1) / 127.0
    scales = np.where(scales == 0, 1.0, scales).astype(np.float32)
    spread = np.repeat(scales, size, axis=1)[:, : table.shape[1]]
    return scales, (np.clip(np.round(table / spread), -127, 127) + 128).astype(np.uint8)


def _rounded(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a scale for each first axis, and int8 weights."""
    scale = np.abs(value.reshape(len(value), -1)).max(1) / 127.0
    scale = np.where(scale == 0, 1.0, scale).astype(np.float32)
    spread = scale.reshape(-1, *[1] * (value.ndim - 1))
    return scale, np.clip(np.round(value / spread), -127, 127).astype(np.int8)


def _weights_only(path: Path, *, standard: bool = False) -> None:
    """Store what is still float32 and large as int8 with a scale for each first axis; it is computed in float32.

    ONNX Runtime multiplies a cast once, when it loads; a `DequantizeLinear` (`standard`) at every run, in the hope of
    an operator that takes int8, which a convolution alone has not. Other engines know only that.
    """
    from onnx import TensorProto, helper, numpy_helper

    model = load_graph(path)
    graph, added = model.graph, []
    for tensor in _large(graph):
        value, name = numpy_helper.to_array(tensor), tensor.name
        scale, rounded = _rounded(value)
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(rounded, f"{name}_int8"))
        if standard:
            parts = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
            zero = numpy_helper.from_array(np.zeros(len(scale), np.int8), parts[2])
            graph.initializer.extend([numpy_helper.from_array(scale, parts[1]), zero])
            added.append(helper.make_node("DequantizeLinear", parts, [name], name=f"{name}_dequantise", axis=0))
        else:
            spread = scale.reshape(-1, *[1] * (value.ndim - 1))
            graph.initializer.append(numpy_helper.from_array(spread, f"{name}{_SPREAD}"))
            added.append(helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=TensorProto.FLOAT))
            added.append(helper.make_node("Mul", [f"{name}_float", f"{name}{_SPREAD}"], [name]))
    for node in reversed(added):
        graph.node.insert(0, node)
    save_graph(model, path)


def _halves(path: Path) -> None:
    """Store what is still float32 and large as float16; it is cast once, when the graph is loaded."""
    from onnx import TensorProto, helper, numpy_helper

    model = load_graph(path)
    graph = model.graph
    for tensor in _large(graph):
        value, name = numpy_helper.to_array(tensor), tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float16), f"{name}_half"))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    save_graph(model, path)


def left_whole(path: Path) -> list[str]:
    """Return the weights of a graph that are float32 and large: what no quantisation reached."""
    return [tensor.name for tensor in _large(load_graph(path, weights=False).graph)]


def _large(graph: Any) -> list[Any]:
    """Return the weights of a graph that are float32 and large; scales of others, which must stay as they are, not."""
    from onnx import TensorProto

    blocked = ("MatMulNBits", "GatherBlockQuantized")
    scales = {name for node in graph.node if node.op_type in blocked for name in node.input[1:]}
    scales |= {tensor.name for tensor in graph.initializer if tensor.name.endswith(_SPREAD)}
    return [
        tensor for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2 and int(np.prod(tensor.dims)) >= _SMALL
        and tensor.name not in scales
    ]  # fmt: skip
