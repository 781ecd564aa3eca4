"""What the writer records: features that the format can hold, and values that fit them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from hfvla.data.sources.lerobot.info import Feature
from hfvla.data.sources.lerobot.table_files import STEP_FEATURES
from hfvla.errors import DataError

__all__ = ["checked_features", "checked_value", "encode_png", "feature_entry"]

_NUMBERS = ("float32", "float64", "int32", "int64", "bool")


def checked_features(features: Mapping[str, Feature | Mapping[str, Any]], where: str) -> dict[str, Feature]:
    """Return the features as `Feature`s.

    Raises:
        DataError: none at all, a name that is taken, or a type or shape that cannot be written.
    """
    checked = {}
    for name, entry in features.items():
        feature = entry if isinstance(entry, Feature) else Feature(
            str(entry.get("dtype")), tuple(entry.get("shape", ())), entry.get("names")
        )  # fmt: skip
        spot = f"{where}: features.{name}"
        if name in STEP_FEATURES or "/" in name or not name:
            raise DataError("no such name for a feature", where=spot, got=name, expected="a new one, without '/'")
        if not feature.shape or not all(isinstance(size, int) and size > 0 for size in feature.shape):
            raise DataError("a feature has no shape", where=spot, got=feature.shape, expected="sizes above 0")
        if feature.is_camera and (len(feature.shape) != 3 or feature.shape[2] != 3):
            raise DataError("a camera's shape is (height, width, 3)", where=spot, got=feature.shape)
        if not feature.is_camera and (feature.dtype not in _NUMBERS or len(feature.shape) > 2):
            raise DataError("a feature cannot be written", where=spot, got=(feature.dtype, feature.shape),
                            expected=f"video, image, or one or two sizes of {', '.join(_NUMBERS)}")  # fmt: skip
        if feature.dtype == "video" and (feature.shape[0] % 2 or feature.shape[1] % 2):
            raise DataError("a video's sides are not even", where=spot, got=feature.shape)
        if feature.is_camera and feature.names is None:
            feature = Feature(feature.dtype, feature.shape, ["height", "width", "channels"])
        checked[name] = feature
    if not checked:
        raise DataError("no features", where=where)
    return checked


def checked_value(value: Any, feature: Feature, where: str) -> np.ndarray:
    """Return a step's value in its feature's type; a scalar for shape (1,).

    Raises:
        DataError: another shape or type, or not finite.
    """
    array, kind = np.asarray(value), "uint8" if feature.is_camera else feature.dtype
    if feature.shape == (1,) and array.ndim == 0:
        array = array.reshape(1)
    if array.shape != feature.shape:
        raise DataError("a value of another shape", where=where, got=array.shape, expected=feature.shape)
    if array.dtype.kind not in "buif" or not np.can_cast(array.dtype, kind, casting="same_kind"):
        raise DataError("a value of another type", where=where, got=str(array.dtype), expected=kind)
    array = array.astype(kind)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("a value is not finite", where=where, got=float(array[~np.isfinite(array)][0]))
    return array[0] if feature.shape == (1,) else array


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode [H, W, 3] uint8 RGB as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def feature_entry(feature: Feature, fps: float) -> dict[str, Any]:
    """Return a feature as meta/info.json has it."""
    entry = {"dtype": feature.dtype, "shape": list(feature.shape), "names": feature.names}
    if feature.dtype == "video":
        about = {"height": feature.shape[0], "width": feature.shape[1], "codec": "h264", "pix_fmt": "yuv420p"}
        about |= {"is_depth_map": False, "fps": fps, "channels": 3}
        entry["info"] = {f"video.{key}": value for key, value in about.items()} | {"has_audio": False}
    return entry
