"""Configuration of EmberVLM: a timm vision tower, a causal language model and a robot-selection head."""

from __future__ import annotations

from typing import Any

# Not `from transformers import ...`: this module is imported while transformers' Auto modules are still loading.
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig

from hfvla.data.samples.robots import ROBOTS
from hfvla.errors import CheckpointError
from hfvla.losses.reductions import check_text_reduction

__all__ = ["LANGUAGE_MODELS", "SPECIAL_TOKENS", "EmberVLMConfig"]

LANGUAGE_MODELS = (
    "gpt2",
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "smollm3",
    "olmo2",
    "granite",
    "phi3",
    "gemma2",
    "gemma3_text",
)
"""Causal language models by `model_type` that take embeddings and positions; SmolLM2 is a "llama"."""

SPECIAL_TOKENS: dict[str, str] = {
    "image_token": "<image>",
    "reasoning_start_token": "<reasoning_start>",
    "reasoning_end_token": "<reasoning_end>",
    "robot_token": "<robot>",
    "plan_token": "<plan>",
}
"""Config attribute prefix -> token text; ids are set from the tokenizer (`<name>_id`)."""

CALIBRATION: dict[str, float] = {"temperature": 1.0, "threshold": 0.5}
"""What is fitted on validation rows after training."""

_REAL_TEXT = {"n_layer": 6, "n_head": 6, "n_embd": 384, "n_inner": 1536, "n_positions": 1024, "vocab_size": 50_263}
_REAL_VISION = {"architecture": "repvit_m0_9", "do_pooling": False}


class EmberVLMConfig(PreTrainedConfig):
    r"""Configuration of `EmberVLMForRobotSelection`; the defaults are the real size (about 36 M parameters).

    Args:
        vision_config (`dict` or `TimmWrapperConfig`): timm architecture and its `model_args`.
        text_config (`dict` or `PreTrainedConfig`): language model, one of `LANGUAGE_MODELS` by its `model_type`;
            "gpt2" without one, with the real size's sizes.
        image_size (`int`): pixels, square.
        vision_hidden_size (`int`): channels of the tower's last feature map.
        vision_stride (`int`): pixels a feature-map cell spans; the grid is `(image_size / vision_stride)` squared.
        visual_grid (`list[int]`, *optional*): (rows, columns) to pool the grid to, e.g. (2, 4) on the edge.
        robots (`list[str]`): the fleet, in label order.
        selection_hidden_size (`int`): width before the last layer of the selection head.
        selection_dropout (`float`): dropout inside the selection head.
        word_dropout (`float`): share of a prompt's words blanked while training.
        task_paraphrase (`float`): share of training rows whose task is put in other words, anew in each epoch; see
            `hfvla.data.paraphrase`.
        ngram_buckets (`int`): ids of the hashed n-gram path to the selection head; 0 = without that path.
        ngram_words_apart (`bool`): words and word pairs get n-gram ids and a sum of their own (in one sum, a word's
            ten parts drown it), and the prompt around the task has no n-grams.
        ngram_width (`int`, *optional*): of an n-gram's vector; the language model's width where not given.
        ngram_word_dropout (`float`): share of a task's words that its n-grams are made without while training: no
            pair and no part of such a word is left to give it away.
        explain_decision (`bool`): the language model is told which robots were picked before it writes: it explains
            the choice that was made, in place of arguing for one of its own.
        counterfactual_decisions (`float`): with `explain_decision`, share of training rows, anew in each epoch, whose
            chain is told the robots of another row of the batch and argues for those.
        selection_loss (`str`): "focal" or "bce".
        focal_gamma (`float`): exponent of the focal term.
        label_smoothing (`float`): targets become `y (1 - s) + s / 2`.
        text_loss_reduction (`str`): what losses on text are a mean over, "sample" or "token"; see `TEXT_REDUCTIONS`.
        temperature_init (`float`): initial contrastive temperature.
        loss_weights (`dict[str, float]`): weight of each loss term in `output.loss`; a term not named is left out.
        calibration (`dict`): {"temperature", "threshold"} fitted on validation data after training.
        initializer_range (`float`): spread of new weights.
        *_token_id (`int`): ids of the special tokens; yes/no are the verdict words of the chain of thought.
    """

    model_type = "ember_vlm"
    sub_configs_defaults = {  # noqa: RUF012
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="timm_wrapper"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="gpt2"),
    }
    sub_config_types = {"vision_config": ("timm_wrapper",), "text_config": LANGUAGE_MODELS}  # noqa: RUF012
    nested_keys = {"calibration": CALIBRATION}  # noqa: RUF012
    keys_to_ignore_at_inference = ["logits", "loss_terms", "verdict_logits", "hidden_states"]  # noqa: RUF012

    vision_config: Any = None
    text_config: Any = None
    image_size: int = 224
    vision_hidden_size: int = 384
    vision_stride: int = 32
    visual_grid: list[int] | tuple[int, ...] | None = None
    robots: list[str] | None = None
    selection_hidden_size: int = 96
    selection_dropout: float = 0.1
    word_dropout: float = 0.1
    task_paraphrase: float = 0.0
    ngram_buckets: int = 0
    ngram_words_apart: bool = False
    ngram_width: int | None = None
    ngram_word_dropout: float = 0.0
    explain_decision: bool = False
    counterfactual_decisions: float = 0.0
    selection_loss: str = "focal"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.1
    text_loss_reduction: str = "sample"
    temperature_init: float = 0.07
    initializer_range: float = 0.02
    loss_weights: dict[str, float] | None = None
    calibration: dict[str, float] | None = None
    image_token_id: int = 50_257
    reasoning_start_token_id: int = 50_258
    reasoning_end_token_id: int = 50_259
    robot_token_id: int = 50_260
    plan_token_id: int = 50_261
    yes_token_id: int | None = None
    no_token_id: int | None = None
    tie_word_embeddings: bool | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill sub-configs and labels; check what later code relies on."""
        self.vision_config = self._sub_config(self.vision_config, "timm_wrapper", _REAL_VISION)
        self.text_config = self._sub_config(self.text_config, "gpt2", _REAL_TEXT)
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = self.text_config.tie_word_embeddings
        self.robots = list(self.robots or ROBOTS)
        self.loss_weights = dict(self.loss_weights or {"selection": 1.0, "reasoning": 1.0, "consistency": 0.4})
        self.calibration = dict(self.calibration or CALIBRATION)
        # The generic config fills its own two-label map from kwargs, which would shadow the fleet's.
        kwargs.pop("id2label", None), kwargs.pop("label2id", None), kwargs.pop("num_labels", None)
        super().__post_init__(**kwargs)
        self.id2label = dict(enumerate(self.robots))
        self.label2id = {name: index for index, name in self.id2label.items()}
        self._check()

    @staticmethod
    def _sub_config(value: Any, model_type: str, defaults: dict) -> PreTrainedConfig:
        if isinstance(value, PreTrainedConfig):
            return value
        settings = dict(value or {})
        asked = settings.pop("model_type", None) or model_type
        if asked == model_type:
            settings = {**defaults, **settings}
        elif asked not in LANGUAGE_MODELS:
            raise CheckpointError(
                "no such language model here",
                where="EmberVLMConfig.text_config.model_type",
                got=asked,
                expected=f"one of {', '.join(LANGUAGE_MODELS)}",
            )
        return AutoConfig.for_model(asked, **settings)

    def _check(self) -> None:
        if self.image_size % self.vision_stride:
            raise CheckpointError(
                "image_size must be a multiple of vision_stride",
                where="EmberVLMConfig",
                got=(self.image_size, self.vision_stride),
            )
        if self.selection_loss not in ("focal", "bce"):
            raise CheckpointError(
                "unknown selection_loss", where="EmberVLMConfig", got=self.selection_loss, expected="'focal' or 'bce'"
            )
        share = self.counterfactual_decisions
        if not 0 <= share <= 1 or (share and not self.explain_decision):
            raise CheckpointError(
                "counterfactual_decisions is a share of the chains that are told what was picked",
                where="EmberVLMConfig",
                got=f"{share} with explain_decision {self.explain_decision}",
                expected="0 to 1, and explain_decision: true above 0",
            )
        check_text_reduction(self.text_loss_reduction, "EmberVLMConfig")
        if len(set(self.robots)) != len(self.robots):
            raise CheckpointError("robot names repeat", where="EmberVLMConfig", got=self.robots)
        if self.num_visual_tokens >= self.text_config.max_position_embeddings:
            raise CheckpointError(
                "the image fills every position of the language model",
                where="EmberVLMConfig",
                got=f"{self.num_visual_tokens} visual tokens of {self.text_config.max_position_embeddings} positions",
                fix="Lower image_size, set visual_grid or raise text_config.max_position_embeddings.",
            )

    @property
    def num_visual_tokens(self) -> int:
        """Placeholders an image takes in `input_ids`."""
        side = self.image_size // self.vision_stride
        rows, columns = self.visual_grid or (side, side)
        return rows * columns

    @property
    def num_robots(self) -> int:
        """Size of the fleet."""
        return len(self.robots)

    @classmethod
    def tiny(cls, **overrides: Any) -> EmberVLMConfig:
        """Return a config whose train step takes milliseconds on a CPU (hidden 32)."""
        settings: dict[str, Any] = {
            "vision_config": {
                "architecture": "repvit_m0_9",
                "do_pooling": False,
                "model_args": {"embed_dim": [8, 8, 16, 16], "depth": [1, 1, 1, 1]},
            },
            "text_config": {
                "n_layer": 2,
                "n_head": 2,
                "n_embd": 32,
                "n_inner": 64,
                "n_positions": 512,
                "vocab_size": 512,
                "bos_token_id": 0,
                "eos_token_id": 0,
            },
            "image_size": 64,
            "vision_hidden_size": 16,
            "selection_hidden_size": 16,
            **{f"{name}_id": 1 + index for index, name in enumerate(SPECIAL_TOKENS)},
            "yes_token_id": 10,
            "no_token_id": 11,
        }
        return cls(**{**settings, **overrides})


AutoConfig.register(EmberVLMConfig.model_type, EmberVLMConfig, exist_ok=True)
