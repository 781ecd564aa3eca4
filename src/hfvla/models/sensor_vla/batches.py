"""From rows of robot episodes to batches, and the statistics that normalise them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.rows.agreement import check_agreement
from hfvla.data.rows.epoch import AUGMENTATION_SEED, draw_seed
from hfvla.data.samples.actions import FrameRef, SensorRef
from hfvla.data.signals.normalize import Normalizer, StatisticsFitter
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.errors import DataError
from hfvla.family import CACHED_FEATURES, as_names
from hfvla.models.sensor_vla.backbones import timm_side, tokens_per_picture
from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig
from hfvla.models.sensor_vla.processing_sensor_vla import SensorVLAProcessor

if TYPE_CHECKING:
    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

__all__ = [
    "SensorVLACollator",
    "draw_pictures",
    "fit_normalizers",
    "load_windows",
    "padded_features",
    "plan_batch",
    "plan_backbone",
    "seen_views",
]

_SENSOR_ROWS = 2_000  # windows that the sensor's statistics are fitted on
_CHUNK = 4_096  # rows read at a time


class SensorVLACollator:
    """Reads pictures and sensor windows, normalises, and encodes the prompts.

    Rows that carry a seed are augmented from it (`view_dropout`, `image_shift` of the config); a resumed run sees the
    same again.

    Args:
        processor: the checkpoint's processor.
        config: the model's config.
        losses: loss terms of the stage.
        training: taken for the contract; what is augmented is said by the rows.
    """

    def __init__(
        self,
        processor: SensorVLAProcessor,
        config: SensorVLAConfig,
        losses: Sequence[str] = ("action",),
        training: bool = True,
    ) -> None:
        check_agreement(processor, config, ("views", "action", "state_dim", "sensor"), "SensorVLACollator")
        self.processor, self.config, self.losses, self.training = processor, config, as_names(losses), training

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch for `SensorVLAForActionPrediction.forward`; see there for shapes.

        Raises:
            DataError: a picture or window cannot be read, or a row does not fit the model.
        """
        names = [str(row["id"]) for row in rows]
        processor = self.processor
        if CACHED_FEATURES in rows[0]:
            batch = padded_features([row[CACHED_FEATURES]["features"] for row in rows])
        else:
            batch = processor.encode_views([row["task"] for row in rows], draw_pictures(processor, self.config, rows))
        if processor.state_dim:
            batch["state"] = processor.encode_state([np.asarray(row["state"]) for row in rows], names)
        if processor.sensor is not None:
            ends_s = [row["sensor"]["end_s"] if row["sensor"] else 0.0 for row in rows]
            batch |= processor.encode_sensor(load_windows(processor, rows), ends_s, names)
        batch |= processor.encode_actions(
            [row["actions"] for row in rows], [row["action_mask"] for row in rows], names
        )
        batch["confidence"] = torch.tensor([_confidence(row) for row in rows])
        if AUGMENTATION_SEED in rows[0]:
            batch["noise_seeds"] = torch.tensor([draw_seed(row) for row in rows])
        return batch


def draw_pictures(
    processor: SensorVLAProcessor, config: SensorVLAConfig, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, np.ndarray]]:
    """Read the pictures of rows, all of them together, augmented where a row has a seed.

    Returns:
        view to [H, W, 3] uint8 RGB, for each row.
    """
    refs: list[FrameRef] = []
    places: list[tuple[int, str]] = []
    generators: list[np.random.Generator | None] = []
    for number, row in enumerate(rows):
        drawn = row.get(AUGMENTATION_SEED)
        generator = None if drawn is None else np.random.default_rng(drawn)
        generators.append(generator)
        views = {view["name"]: view for view in row["views"] if view["name"] in processor.views}
        for name in _kept(list(views), config.view_dropout, generator):
            refs.append(FrameRef(**{key: value for key, value in views[name].items() if key != "name"}))
            places.append((number, name))
    pictures: list[dict[str, np.ndarray]] = [{} for _ in rows]
    for (number, name), pixels in zip(places, processor.frames.load(refs), strict=True):
        drawn = generators[number]
        shifted = pixels if drawn is None or not config.image_shift else _shifted(pixels, config.image_shift, drawn)
        pictures[number][name] = shifted
    return pictures


def _kept(views: list[str], dropout: float, generator: np.random.Generator | None) -> list[str]:
    """Let views go missing, but never the last one."""
    if generator is None or not dropout or len(views) < 2:
        return views
    kept = [view for view in views if generator.random() >= dropout]
    return kept or [views[int(generator.integers(len(views)))]]


def _shifted(pixels: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """Move a picture by up to `most` pixels each way; its rim is repeated."""
    down, right = generator.integers(0, 2 * most + 1, 2)
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((most, most), (most, most), (0, 0)), mode="edge")[
        down : down + height, right : right + width
    ]


def load_windows(processor: SensorVLAProcessor, rows: Sequence[Mapping[str, Any]]) -> list[SensorSamples | None]:
    """Read the sensor windows of rows; None where a row has none."""
    return [processor.series.load(SensorRef(**row["sensor"])) if row["sensor"] else None for row in rows]


def padded_features(features: Sequence[Tensor]) -> dict[str, Tensor]:
    """Put features [N_i, D] of different lengths into one batch: features [B, N, D], feature_mask [B, N]."""
    lengths = torch.tensor([len(one) for one in features])
    width = int(lengths.max())
    return {
        "features": torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True),
        "feature_mask": torch.arange(width) < lengths[:, None],
    }


def _confidence(row: Mapping[str, Any]) -> float:
    """Weight of a sample, from its details; 1 where they say none."""
    details = dict(part.split("=", 1) for part in row.get("details", "").split(";") if part)
    try:
        value = float(details.get("confidence", 1.0))
    except ValueError:
        value = -1.0
    if not (np.isfinite(value) and value >= 0):
        raise DataError("confidence of a sample", where=str(row["id"]), got=details["confidence"], expected=">= 0")
    return value


def seen_views(rows: Iterable[Mapping[str, Any]], config: SensorVLAConfig) -> list[str]:
    """Return the views of the config that every row has; none when views are dropped in training.

    Raises:
        DataError: a view of the config that no row has.
    """
    common, union = set(config.views), set[str]()
    narrow = rows.select_columns(["views"]) if hasattr(rows, "select_columns") else rows  # the arrays are large
    for row in narrow:
        found = {view["name"] for view in row["views"]}
        common &= found
        union |= found
    missing = [view for view in config.views if view not in union]
    if missing:
        raise DataError(
            "no training row has a view of the config",
            got=missing[0],
            expected=sorted(union),
            where="model.config.views",
        )
    return [] if config.view_dropout else [view for view in config.views if view in common]


def _chunks(rows: Any) -> Iterator[dict[str, list]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def fit_normalizers(processor: SensorVLAProcessor, config: SensorVLAConfig, rows: Any) -> dict[str, Any]:
    """Fit the normalisation of actions, state and sensor on training rows.

    Args:
        processor: reads sensor windows.
        config: sizes and kinds of normalisation.
        rows: a `datasets.Dataset` of `action_features`.

    Returns:
        by name, `Normalizer.to_dict()`.

    Raises:
        DataError: no row, sizes that differ from the config's, NaN, or a config with a sensor that no row has.
    """
    if not len(rows):
        raise DataError("there are no training rows to fit statistics on")
    fitters = {"action": StatisticsFitter("actions", config.action["dim"], names=config.action["names"] or ())}
    if config.state_dim:
        fitters["state"] = StatisticsFitter("state", config.state_dim)
    with_sensor: list[int] = []
    for number, chunk in enumerate(_chunks(rows)):
        actions, mask = np.asarray(chunk["actions"], np.float64), np.asarray(chunk["action_mask"], bool)
        if actions.shape[1:] != (config.action["horizon"], config.action["dim"]):
            raise DataError(
                "the data's action chunks have another size than the model's", where=str(chunk["id"][0]),
                got=actions.shape[1:], expected=(config.action["horizon"], config.action["dim"]),
                fix="Set model.config.action (dim, horizon) and the source's horizon to the same sizes.",
            )  # fmt: skip
        fitters["action"].update(actions[mask])
        if config.state_dim:
            fitters["state"].update(np.asarray(chunk["state"], np.float64))
        with_sensor += [number * _CHUNK + at for at, found in enumerate(chunk["sensor"]) if found]
    if config.sensor is not None:
        if not with_sensor:
            raise DataError(
                "the model has a sensor, and no training row has one",
                fix="Name it in the source, or model.config.sensor: null",
            )
        fitters["sensor"] = StatisticsFitter("sensor", config.sensor["channels"], names=config.sensor["names"] or ())
        step = max(1, len(with_sensor) // _SENSOR_ROWS)
        for index in with_sensor[::step]:
            window = load_windows(processor, [rows[index]])[0]
            fitters["sensor"].update(window.values)
    return {
        name: Normalizer(fitter.finish(), config.normalization[name]).to_dict()  # type: ignore[arg-type]
        for name, fitter in fitters.items()
    }


_CAMERA = (640, 360)  # width, height that are assumed where the backbone takes any size
_LARGE_PATCH = 14  # towers with smaller patches are of tests, whose pictures are small too
_SMALL_CAMERA = (32, 32)
_TEXT_TOKENS, _TEXT_TOKEN = 48, 20  # task, names of views, marks; a plain token of tiny vocabularies too


def plan_batch(config: SensorVLAConfig, batch_size: int, losses: Sequence[str]) -> dict[str, Any]:
    """Return a batch for `SensorVLAForActionPrediction.forward` with every view and a sensor in each sample.

    Args:
        config: the model's config.
        batch_size: samples.
        losses: loss terms of the stage.
    """
    backbone, views = config.backbone_config, len(config.views)
    pictures, tokens = _pictures(backbone, batch_size, views)
    ids = torch.full((batch_size, views * (tokens + 1) + _TEXT_TOKENS), _TEXT_TOKEN)
    for view in range(views):  # a view's name, then its picture
        start = view * (tokens + 1) + 1
        ids[:, start : start + tokens] = backbone.image_token_id
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # one row is shorter: a padded batch takes another attention kernel
    batch = {"input_ids": ids, "attention_mask": mask, **pictures}
    if backbone.model_type.startswith("qwen"):
        batch["mm_token_type_ids"] = (ids == backbone.image_token_id).long()
    if config.state_dim:
        batch["state"] = torch.zeros(batch_size, config.state_dim)
    if config.sensor is not None:
        points, channels = config.sensor["points"], config.sensor["channels"]
        batch["sensor"] = torch.zeros(batch_size, points, channels)
        batch["sensor_present"] = torch.ones(batch_size, dtype=torch.bool)
        batch["sensor_mask"] = torch.ones(batch_size, points, dtype=torch.bool)
    horizon, dim = config.action["horizon"], config.action["dim"]
    batch["actions"] = torch.zeros(batch_size, horizon, dim)
    batch["action_mask"] = torch.ones(batch_size, horizon, dtype=torch.bool)
    batch["confidence"] = torch.ones(batch_size)
    return batch


def _pictures(backbone: Any, batch_size: int, views: int) -> tuple[dict[str, Any], int]:
    """Return the picture tensors, and the placeholders of one picture."""
    vision, count = backbone.vision_config, batch_size * views
    if backbone.model_type.startswith("qwen"):
        factor = vision.patch_size * vision.spatial_merge_size
        width, height = _CAMERA if vision.patch_size >= _LARGE_PATCH else _SMALL_CAMERA
        columns, rows = (round(side / factor) * vision.spatial_merge_size for side in (width, height))
        values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        grid = torch.tensor([[1, rows, columns]]).repeat(count, 1)
        pixels = torch.empty(count * rows * columns, values, device="meta")
        return {"pixel_values": pixels, "image_grid_thw": grid}, rows * columns // vision.spatial_merge_size**2
    tokens = tokens_per_picture(backbone)
    if backbone.model_type == "internvl":
        return {"pixel_values": torch.empty(count, 3, *vision.image_size, device="meta")}, tokens
    if backbone.model_type == "fast_vlm":
        side = timm_side(backbone)
        return {"pixel_values": torch.empty(count, 3, side, side, device="meta")}, tokens
    side = vision.image_size
    shape = (batch_size, views, side, side)
    return {
        "pixel_values": torch.empty(batch_size, views, 3, side, side, device="meta"),
        "pixel_attention_mask": torch.ones(shape, dtype=torch.bool),
    }, tokens


def plan_backbone(model: SensorVLAForActionPrediction, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it: hidden states in place of pictures and text."""
    names = (
        "input_ids",
        "attention_mask",
        "pixel_values",
        "image_grid_thw",
        "mm_token_type_ids",
        "pixel_attention_mask",
    )
    given = {name: batch.pop(name) for name in names if name in batch}
    features, mask = model.encode(**given)
    return {**batch, "features": features, "feature_mask": mask}
