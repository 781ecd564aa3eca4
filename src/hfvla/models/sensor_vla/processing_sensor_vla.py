"""What a sensor VLA needs around its tensors: prompts and pictures here, numbers in `signals.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.signals.normalize import Normalizer
from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorLoader, SensorSamples
from hfvla.data.signals.sensors import window_times
from hfvla.data.text import clean_text
from hfvla.data.video import VideoReader
from hfvla.errors import DataError, did_you_mean
from hfvla.loading import check_same
from hfvla.models.sensor_vla.backbones import backbone_kind, wrap_processor
from hfvla.models.sensor_vla.configuration_sensor_vla import ACTION, SensorVLAConfig
from hfvla.models.sensor_vla.signals import RobotSignals

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["SensorVLAProcessor"]

_FRAME_CACHE_BYTES = 512 * 2**20
_FRAME_TOLERANCE_S = 0.005  # of a frame's time; sources have checked their clocks before


_SHARED = ("views", "prompt", "action", "state_dim", "sensor")


class SensorVLAProcessor(RobotSignals, ProcessorMixin):
    """Image processor, tokenizer, views, sensor window and statistics, saved together.

    Args:
        image_processor: the backbone's.
        tokenizer: the backbone's.
        backbone (`str`): model type of the backbone; decides which processor of transformers puts text and pictures
            together.
        backbone_arguments (`dict`): further arguments of that processor's class.
        views (`list[str]`): cameras in the order of the prompt.
        required_views (`list[str]`): those that every training row had; a sample without one of them is refused.
        prompt (`str`): what is said to the backbone, with "{task}".
        action (`dict`): a config's `action`.
        state_dim (`int`): channels of the state.
        sensor (`dict`, *optional*): a config's `sensor`.
        normalizers (`dict`): by "action", "state" and "sensor", `Normalizer.to_dict()` of the training rows.
        image_size (`list[int]`, *optional*): [height, width] to which every picture is scaled first.
        chat_template (`str`, *optional*): with one, the prompt is put as a user's turn; without, as plain text.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor = None,
        tokenizer: PreTrainedTokenizerBase = None,
        backbone: str = "qwen2_5_vl",
        backbone_arguments: Mapping[str, Any] | None = None,
        views: Sequence[str] = (),
        required_views: Sequence[str] = (),
        prompt: str = "{task}",
        action: Mapping[str, Any] | None = None,
        state_dim: int = 0,
        sensor: Mapping[str, Any] | None = None,
        normalizers: Mapping[str, Any] | None = None,
        image_size: Sequence[int] | None = None,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.backbone, self.backbone_arguments = backbone, dict(backbone_arguments or {})
        self.views, self.required_views, self.prompt = list(views), list(required_views), prompt
        self.action, self.state_dim = {**ACTION, **(action or {})}, state_dim
        self.sensor = dict(sensor) if sensor is not None else None
        self.normalizers = dict(normalizers or {})
        self.image_size = None if image_size is None else list(image_size)
        self._normalizers: dict[str, Normalizer] = {}
        self._backbone: Any = None
        self._frames: FrameLoader | None = None
        self._series: SensorLoader | None = None

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse a config that this processor does not fit.

        Raises:
            CheckpointError: another backbone, other views or another order of them, prompt, action, state or sensor.
        """
        text = config.get_text_config()
        pairs = {name: (getattr(self, name), getattr(config, name)) for name in _SHARED}
        pairs["backbone"] = (self.backbone, config.backbone_config.model_type)
        pairs["required_views"] = ([view for view in self.required_views if view in config.views], self.required_views)
        pairs["tokens"] = (max(len(self.tokenizer), text.vocab_size), text.vocab_size)
        check_same("SensorVLAProcessor", pairs)

    # ---- readers ----------------------------------------------------------------------------------------------------

    @property
    def frames(self) -> FrameLoader:
        """Reader of pictures by reference; videos stay open between calls."""
        if self._frames is None:
            reader = VideoReader(open_files=32, cache_bytes=_FRAME_CACHE_BYTES)
            self._frames = FrameLoader(tolerance_s=_FRAME_TOLERANCE_S, reader=reader)
        return self._frames

    @property
    def series(self) -> SensorLoader:
        """Reader of sensor windows by reference."""
        if self._series is None:
            self._series = SensorLoader()
        return self._series

    # ---- pictures and text ------------------------------------------------------------------------------------------

    @property
    def tokenizer_rules(self) -> dict[str, Any]:
        """What the tokenizer does to a text, as data; its files also say where they were loaded from."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return dict(self.tokenizer.get_vocab()) if backend is None else json.loads(backend.to_str())

    def prompt_text(self, task: str, views: Sequence[str]) -> str:
        """Return the prompt of a sample: the task, then each view's name and picture.

        Raises:
            DataError: an empty task, or one that holds a special token.
        """
        if not task.strip():
            raise DataError("a sample has no task", got=task, expected="what the robot is told to do")
        found = [token for token in self.tokenizer.all_special_tokens if token in task]
        if found:
            raise DataError("the task holds a special token", got=found[0], where=task)
        said = self.prompt.replace("{task}", clean_text(task))
        if not self.chat_template:
            mark = backbone_kind(self.backbone).image_text
            return "\n".join([said, *(f"{view}: {mark}" for view in views)])
        content: list[dict[str, str]] = [{"type": "text", "text": said}]
        for view in views:
            content += [{"type": "text", "text": f"\n{view}: "}, {"type": "image"}]
        messages = [{"role": "user", "content": content}]
        return self.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def check_views(self, views: Sequence[str], where: str) -> list[str]:
        """Return the views of a sample in the order of the prompt.

        Raises:
            DataError: a view that training did not have, none at all, or none where training always had one.
        """
        for view in views:
            if view not in self.views:
                raise DataError("unknown view", where=where, got=view, fix=did_you_mean(view, self.views))
        missing = [view for view in self.required_views if view not in views]
        if missing or not views:
            raise DataError(
                "a view is missing that every training row had" if missing else "a sample without any view",
                where=where, got=f"views {sorted(views)}", expected=", ".join(missing or self.views),
                fix="Train with rows that lack it, or with view_dropout, to make it optional.",
            )  # fmt: skip
        return [view for view in self.views if view in views]

    def encode_views(self, tasks: Sequence[str], pictures: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Tensor]:
        """Return the backbone's inputs.

        Args:
            tasks: B of them.
            pictures: view to [H, W, 3] uint8, for each sample; any subset of the views.

        Returns:
            `dict`: input_ids, attention_mask [B, T], pixel_values and what else the backbone wants.
        """
        kind = backbone_kind(self.backbone)
        orders = [self.check_views(list(found), task) for task, found in zip(tasks, pictures, strict=True)]
        texts = [self.prompt_text(task, order) for task, order in zip(tasks, orders, strict=True)]
        images = [
            [self._picture(found[view]) for view in order] for found, order in zip(pictures, orders, strict=True)
        ]
        if self._backbone is None:
            self._backbone = wrap_processor(
                self.backbone, self.image_processor, self.tokenizer, self.backbone_arguments, self.chat_template
            )
        batch = self._backbone(
            text=texts, images=images, padding=True, padding_side="right", return_tensors="pt", **kind.call
        )
        return dict(batch)

    def _picture(self, pixels: np.ndarray) -> Image.Image:
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise DataError("not a picture", got=(pixels.shape, str(pixels.dtype)), expected="[H, W, 3] uint8")
        image = Image.fromarray(pixels)
        if self.image_size is None or image.size == (self.image_size[1], self.image_size[0]):
            return image
        return image.resize((self.image_size[1], self.image_size[0]), Image.Resampling.BICUBIC)

    # ---- a robot's moment -------------------------------------------------------------------------------------------

    def check_observation(self, observation: Observation) -> None:
        """Refuse what cannot be acted on.

        Raises:
            DataError: unknown or missing view, or what `check_robot` refuses.
        """
        self.check_views(list(observation.views), f"observation at {observation.time_s:.3f} s")
        self.check_robot(observation)

    def check_robot(self, observation: Observation) -> None:
        """Refuse a state or sensor that cannot be acted on; views are not looked at.

        Raises:
            DataError: another state, NaN, a sensor sample later than the observation, or a sensor whose newest sample
                is older than `sensor["max_age_s"]`.
        """
        where = f"observation at {observation.time_s:.3f} s"
        if self.state_dim:
            self.check_state(observation.state, where)
        if self.sensor is None or observation.sensor is None:
            return
        times_s = observation.sensor.times_s
        age_s = observation.time_s - float(times_s[-1]) if len(times_s) else float("inf")
        if not -1e-6 <= age_s <= self.sensor["max_age_s"]:
            raise DataError(
                "the sensor is stale" if age_s > 0 else "a sensor sample is later than its observation", where=where,
                got=f"newest sample {age_s:.4f} s old", expected=f"0 to {self.sensor['max_age_s']} s",
            )  # fmt: skip
        if not np.isfinite(observation.sensor.values).all():
            raise DataError("the sensor is not finite", where=where, got="NaN or infinity among its samples")

    def example_observation(self) -> Observation:
        """Make an observation up, of the right sizes: grey pictures, mean state and sensor; for warming up."""
        height, width = self.image_size or (224, 224)
        sensor = None
        if self.sensor is not None:
            mean = np.asarray(self.normalizer("sensor").statistics.mean, dtype=np.float32)
            times_s = window_times(0.0, self.sensor["points"], self.sensor["rate_hz"])
            sensor = SensorSamples(times_s, np.tile(mean, (len(times_s), 1)))
        state = self.normalizer("state").statistics.mean if self.state_dim else []
        return Observation(
            views={view: np.full((height, width, 3), 128, dtype=np.uint8) for view in self.views},
            state=np.asarray(state, dtype=np.float32),
            task="wait",
            sensor=sensor,
        )

    def encode_robot(self, observations: Sequence[Observation]) -> dict[str, Tensor]:
        """Return state and sensor tensors of observations: what changes between two runs of the backbone.

        Raises:
            DataError: see `check_robot`; a sensor goes stale also while the backbone's features are reused.
        """
        for one in observations:
            self.check_robot(one)
        where = [f"observation at {one.time_s:.3f} s" for one in observations]
        batch: dict[str, Tensor] = {}
        if self.state_dim:
            batch["state"] = self.encode_state([one.state for one in observations], where)
        if self.sensor is not None:
            batch |= self.encode_sensor(
                [one.sensor for one in observations], [one.time_s for one in observations], where
            )
        return batch

    def __call__(self, observations: Observation | Sequence[Observation] = (), **kwargs: Any) -> BatchFeature:
        """Encode observations for `model(**batch)`.

        Raises:
            DataError: see `check_observation`.
        """
        found = [observations] if isinstance(observations, Observation) else list(observations)
        for one in found:
            self.check_observation(one)
        pictures = [{view: np.asarray(one.views[view]) for view in one.views} for one in found]
        return BatchFeature({**self.encode_views([one.task for one in found], pictures), **self.encode_robot(found)})


AutoProcessor.register(SensorVLAConfig, SensorVLAProcessor, exist_ok=True)
