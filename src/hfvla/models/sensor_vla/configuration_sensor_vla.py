"""Configuration of a sensor VLA: a backbone, the robot's numbers, a sensor, a fusion and an action expert."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, get_type_hints

# Not `from transformers import ...`: this module is imported while transformers' Auto modules are still loading.
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig

from hfvla.backbones.shapes import VLM_SHAPES, tiny_vlm
from hfvla.errors import CheckpointError, did_you_mean
from hfvla.models.sensor_vla.backbones import KINDS
from hfvla.nn.action_experts import ACTION_EXPERTS, ActionExpert
from hfvla.nn.fusion import FUSIONS

__all__ = ["ACTION", "EXPERT", "NORMALIZATION", "POOLINGS", "SENSOR", "SENSOR_ENCODER", "SensorVLAConfig"]

ACTION: dict[str, Any] = {"dim": 7, "horizon": 8, "fps": 10.0, "names": None}
"""Channels and steps of a chunk, steps a second, and the channels' names (with units) for reports."""

SENSOR: dict[str, Any] = {
    "channels": 1026, "points": 65, "rate_hz": 650.0, "tolerance_s": 0.01, "max_age_s": 0.05, "method": "previous",
    "names": None,
}  # fmt: skip
"""The window: points, a second; how old a sample a point may stand for; how old the newest may be on a robot."""

SENSOR_ENCODER: dict[str, Any] = {
    "width": 1024, "conv_widths": [512, 1024, 1024, 1024], "branches": None, "layers": 2, "heads": 8,
    "feed_forward": 4096, "dropout": 0.0, "norm": "layer", "groups": 8, "sensor_dropout": 0.1,
}  # fmt: skip
"""See `hfvla.nn.sensor_encoder.SensorEncoder`; `width` is its output's."""

EXPERT: dict[str, Any] = {"kind": "regression", "layers": 4, "heads": 8, "feed_forward": 4096}
"""Kind and options of `hfvla.nn.action_experts`; options of the kind may be added."""

NORMALIZATION: dict[str, str] = {"action": "quantile", "state": "mean_std", "sensor": "mean_std"}
"""How each is normalised, see `hfvla.data.signals.normalize.Normalizer`."""

POOLINGS = ("tokens", "mean")
"""What of the backbone the expert reads: all valid tokens, or their mean."""


def _expert_keys(expert: Mapping[str, Any]) -> dict[str, Any]:
    """Return type by key of what an expert of this kind takes; of any kind where it is none that is known."""
    kind = expert.get("kind", EXPERT["kind"])
    known_kind = isinstance(kind, str) and kind in ACTION_EXPERTS
    classes = [ACTION_EXPERTS[kind]] if known_kind else list(ACTION_EXPERTS.values())
    known: dict[str, Any] = {"kind": Literal[tuple(ACTION_EXPERTS)]}
    for owner in (owner for chosen in classes for owner in chosen.__mro__):
        if "__init__" in vars(owner) and issubclass(owner, ActionExpert):
            arguments = inspect.signature(owner.__init__).parameters.values()
            hints = get_type_hints(owner.__init__)
            known |= {a.name: hints[a.name] for a in arguments if a.kind is a.KEYWORD_ONLY and a.name not in known}
    return known


class SensorVLAConfig(PreTrainedConfig):
    r"""Configuration of `SensorVLAForActionPrediction`; the defaults are Qwen2.5-VL-3B and the original rig.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`): any image-text model of transformers, e.g. "qwen2_5_vl",
            "qwen3_vl", "smolvlm", "internvl", or "fast_vlm", a tower of timm before any language model (key
            `model_type`).
        backbone_dtype (`str`, *optional*): type that the backbone is loaded in, where it differs from the rest's.
        views (`list[str]`): cameras by name, in the order in which a prompt shows them.
        view_dropout (`float`): share of training rows in which each view but one goes missing.
        image_shift (`int`): training pictures are moved by up to this many pixels, their rims repeated; 0 for none.
        prompt (`str`): what is said to the backbone; "{task}" stands for the row's task.
        state_dim (`int`): channels of the robot's state; 0 without.
        action (`dict`): see `ACTION`.
        sensor (`dict`, *optional*): see `SENSOR`; None without a sensor.
        sensor_encoder (`dict`): see `SENSOR_ENCODER`.
        fusion (`str`): one of "concat", "cross_attention", "gated", "none".
        feature_pooling (`str`): "tokens" or "mean".
        expert (`dict`): see `EXPERT`.
        normalization (`dict`): see `NORMALIZATION`.
        sensor_loss_weight (`float`): factor on the loss of samples with a sensor.
        loss_weights (`dict[str, float]`): weight of each loss term in `output.loss`.
    """

    model_type = "sensor_vla"
    sub_configs_defaults = {  # noqa: RUF012
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2_5_vl"),
    }
    sub_config_types = {"backbone_config": tuple(KINDS)}  # noqa: RUF012
    nested_keys = {  # noqa: RUF012
        "action": {**ACTION, "names": list[str] | None},
        "sensor": {**SENSOR, "names": list[str] | None},
        "sensor_encoder": {**SENSOR_ENCODER, "branches": list[int] | None},
        "normalization": NORMALIZATION,
        "expert": _expert_keys,
    }  # fmt: skip
    keys_to_ignore_at_inference = ["loss_terms"]  # noqa: RUF012

    backbone_config: Any = None
    backbone_dtype: str | None = None
    views: list[str] | tuple[str, ...] = ("front", "wrist")
    view_dropout: float = 0.0
    image_shift: int = 0
    prompt: str = "{task}"
    state_dim: int = 0
    action: dict[str, Any] | None = None
    sensor: dict[str, Any] | None = None
    sensor_encoder: dict[str, Any] | None = None
    fusion: str = "concat"
    feature_pooling: str = "tokens"
    expert: dict[str, Any] | None = None
    normalization: dict[str, str] | None = None
    sensor_loss_weight: float = 2.0
    loss_weights: dict[str, float] | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the backbone and the settings; check what later code relies on."""
        if not isinstance(self.backbone_config, PreTrainedConfig):
            settings = dict(self.backbone_config or VLM_SHAPES["Qwen/Qwen2.5-VL-3B-Instruct"])
            kind = settings.pop("model_type", "qwen2_5_vl")
            self.backbone_config = AutoConfig.for_model(kind, **settings)
        self.views = list(self.views)
        self.action = _filled("action", ACTION, self.action)
        self.sensor = None if self.sensor is None else _filled("sensor", SENSOR, self.sensor)
        self.sensor_encoder = _filled("sensor_encoder", SENSOR_ENCODER, self.sensor_encoder)
        self.expert = {**EXPERT, **(self.expert or {})}  # its options depend on its kind, and are checked by it
        self.normalization = _filled("normalization", NORMALIZATION, self.normalization)
        self.loss_weights = dict(self.loss_weights or {"action": 1.0})
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        where = "SensorVLAConfig"
        choices = (
            ("fusion", self.fusion, FUSIONS),
            ("feature_pooling", self.feature_pooling, POOLINGS),
            ("expert.kind", self.expert["kind"], ACTION_EXPERTS),
        )
        for name, value, known in choices:
            if value not in known:
                raise CheckpointError(f"no such {name}", where=where, got=value, fix=did_you_mean(value, known))
        if len(set(self.views)) != len(self.views):
            raise CheckpointError("a view is named twice", where=where, got=self.views)
        if "{task}" not in self.prompt:
            raise CheckpointError("the prompt does not say the task", where=where, got=self.prompt, expected="{task}")
        for name, value in (("view_dropout", self.view_dropout), ("sensor_dropout", self.sensor_dropout)):
            if not 0.0 <= value < 1.0:
                raise CheckpointError(f"{name} is no share", where=where, got=value, expected="0 <= share < 1")
        numbers = {"action.dim": self.action["dim"], "action.horizon": self.action["horizon"]}
        if self.sensor is not None:
            numbers |= {f"sensor.{name}": self.sensor[name] for name in ("channels", "points")}
        for name, value in numbers.items():
            if int(value) != value or value < 1:
                raise CheckpointError(f"{name} is no count", where=where, got=value, expected=">= 1")
        names = self.action["names"]
        if names is not None and len(names) != self.action["dim"]:
            raise CheckpointError("action.names", where=where, got=len(names), expected=f"{self.action['dim']} names")

    @property
    def sensor_dropout(self) -> float:
        """Share of training rows whose sensor goes missing."""
        return float(self.sensor_encoder["sensor_dropout"])

    @property
    def feature_width(self) -> int:
        """D, width of the backbone's hidden states."""
        return int(self.get_text_config().hidden_size)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """Return the language model's config."""
        return self.backbone_config.get_text_config(*args, **kwargs)

    @classmethod
    def tiny(cls, backbone: str = "qwen2_5_vl", **overrides: Any) -> SensorVLAConfig:
        """Return a config whose train step takes milliseconds on a CPU (hidden 32).

        Args:
            backbone: model type, a key of `hfvla.backbones.shapes.TINY_VLMS`.
            **overrides: of the config.
        """
        settings: dict[str, Any] = {
            "backbone_config": tiny_vlm(backbone),
            "state_dim": 4,
            "action": {"dim": 4, "horizon": 4},
            "sensor": {"channels": 6, "points": 16, "rate_hz": 400.0},
            "sensor_encoder": {
                "width": 32, "conv_widths": [16, 32], "layers": 1, "heads": 2, "feed_forward": 64,
                "sensor_dropout": 0.0,
            },
            "expert": {"width": 32, "layers": 1, "heads": 2, "feed_forward": 64},
        }  # fmt: skip
        return cls(**{**settings, **overrides})


def _filled(name: str, defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the defaults with the given values over them; an unknown key is an error."""
    unknown = [key for key in given or {} if key not in defaults]
    if unknown:
        raise CheckpointError(
            f"unknown key in {name}", where="SensorVLAConfig", got=unknown[0], fix=did_you_mean(unknown[0], defaults)
        )
    return {**defaults, **(given or {})}


AutoConfig.register(SensorVLAConfig.model_type, SensorVLAConfig, exist_ok=True)
