"""From rows of robot episodes to batches, and the statistics that normalise them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.agreement import check_agreement
from hfvla.data.epoch import AUGMENTATION_SEED
from hfvla.data.normalize import Normalizer, StatisticsFitter
from hfvla.data.samples_actions import FrameRef, SensorRef
from hfvla.data.sensor_loader import SensorSamples
from hfvla.errors import DataError
from hfvla.family import CACHED_FEATURES, as_names
from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig
from hfvla.models.sensor_vla.processing_sensor_vla import SensorVLAProcessor

__all__ = ["SensorVLACollator", "draw_pictures", "fit_normalizers", "load_windows", "padded_features", "seen_views"]

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
            fitters["sensor"].update(window.values)  # type: ignore[union-attr]
    return {
        name: Normalizer(fitter.finish(), config.normalization[name]).to_dict()  # type: ignore[arg-type]
        for name, fitter in fitters.items()
    }
