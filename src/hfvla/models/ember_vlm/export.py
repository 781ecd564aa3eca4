"""What other programs can have of this family's models: the language model alone, and three graphs.

vision     pixels                                  -> image tokens
select     prompt, image tokens, n-grams           -> log-odds of each robot
decoder    prompt or next token, image tokens, past -> logits of the next token, past
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hfvla.family import Answers, ExportPart, ExportPlan, PlainBackbone
from hfvla.nn.graph_language import CACHE, past_shape
from hfvla.nn.pooling import masked_mean

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

__all__ = ["export_plan", "image_tokens", "plain_backbone", "selected"]

_WRITTEN_TOKENS, _WRITTEN_ROWS = 16, 8  # of a greedy continuation that both engines write


def plain_backbone(model: EmberVLMForRobotSelection, processor: ProcessorMixin) -> PlainBackbone:
    """Return the language model with its tokenizer."""
    return PlainBackbone("language_model", model.language_model, (processor.tokenizer,), "language")


class _Vision(nn.Module):
    """[N, 3, S, S] pixels to [N, tokens, D]."""

    def __init__(self, model: EmberVLMForRobotSelection) -> None:
        super().__init__()
        from timm.utils import reparameterize_model

        self.tower = copy.deepcopy(model.vision)
        # Branches that only training needs become one. timm 1.0.20 loses a network that is not the root.
        self.tower.backbone = reparameterize_model(self.tower.backbone)
        self.projector = model.projector

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        return (self.projector(self.tower(pixel_values)),)


class _Prompt(nn.Module):
    """Embeds a prompt and puts image tokens over its placeholders, without `masked_scatter`, which ONNX lacks."""

    def __init__(self, model: EmberVLMForRobotSelection) -> None:
        super().__init__()
        self.words, self.image_token_id = model.get_input_embeddings(), model.config.image_token_id

    def forward(self, input_ids: Tensor, image_tokens: Tensor) -> Tensor:
        image = input_ids == self.image_token_id
        place = (image.long().cumsum(1) - 1).clamp(min=0)
        found = image_tokens.gather(1, place[..., None].expand(-1, -1, image_tokens.shape[-1]))
        words = self.words(input_ids)
        return torch.where(image[..., None], found.to(words.dtype), words)


class _Select(nn.Module):
    """Prompt and image tokens to log-odds [B, R]; what `forward` of the model computes outside training."""

    def __init__(self, model: EmberVLMForRobotSelection) -> None:
        super().__init__()
        self.prompt, self.config = _Prompt(model), model.config
        self.language_model = model.language_model.base_model
        self.fusion, self.head = model.fusion, model.selection_head

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, image_tokens: Tensor, ngram_ids: Tensor | None = None
    ) -> tuple[Tensor]:
        embeddings = self.prompt(input_ids, image_tokens)
        image = input_ids == self.config.image_token_id
        answered = (input_ids == self.config.reasoning_start_token_id).long().cumsum(1) > 0
        text = attention_mask.bool() & ~answered & ~image
        positions = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        hidden = self.language_model(
            inputs_embeds=embeddings, attention_mask=attention_mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        pooled = [masked_mean(*pair) for pair in ((hidden, text), (embeddings, text), (embeddings, image))]
        return (self.head(self.fusion(*pooled, image.any(1), ngram_ids)),)


class _Decoder(nn.Module):
    """One step of writing: the prompt with an empty past, then a token at a time.

    `past` is as `past_shape` says; P is 0 for the prompt.
    """

    def __init__(self, model: EmberVLMForRobotSelection) -> None:
        super().__init__()
        self.prompt, self.language_model = _Prompt(model), model.language_model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, image_tokens: Tensor, past: Tensor
    ) -> tuple[Tensor, Tensor]:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer in range(past.shape[0]):
            cache.update(past[layer, 0], past[layer, 1], layer)
        positions = (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        found = self.language_model(
            inputs_embeds=self.prompt(input_ids, image_tokens), attention_mask=attention_mask, position_ids=positions,
            use_cache=True, logits_to_keep=1, **{CACHE: cache},
        )  # fmt: skip
        kept = torch.stack([torch.stack([layer.keys, layer.values]) for layer in getattr(found, CACHE).layers])
        return found.logits[:, -1], kept


def export_plan(model: EmberVLMForRobotSelection, processor: ProcessorMixin) -> ExportPlan:
    """Return the graphs of this model; rows are answered by a choice of robots and a few written tokens."""
    config = model.config
    text = config.text_config
    rows, words, tokens = 2, 12, config.num_visual_tokens
    prompt = torch.full((rows, tokens + words), config.image_token_id)
    prompt[:, tokens:] = torch.arange(words) % 7 + 12  # no special token
    image = torch.zeros(rows, tokens, text.hidden_size)
    batch, time = {0: "batch"}, {0: "batch", 1: "time"}
    select = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "image_tokens": image}
    axes: dict[str, dict[int, str]] = {"input_ids": time, "attention_mask": time, "image_tokens": batch}
    if config.ngram_buckets:
        select["ngram_ids"] = torch.ones(rows, 5, dtype=torch.long)
    past = torch.zeros(past_shape(text, rows, 3))
    decoder = {**select, "attention_mask": torch.ones(rows, prompt.shape[1] + 3, dtype=torch.long), "past": past}
    decoder.pop("ngram_ids", None)
    pixels = torch.zeros(rows, 3, config.image_size, config.image_size)
    parts = (
        ExportPart("vision", _Vision(model).eval(), {"pixel_values": pixels}, ("image_tokens",),
                   {"pixel_values": batch}),
        ExportPart("select", _Select(model).eval(), select, ("selection_logits",),
                   {**axes, **({"ngram_ids": {0: "batch", 1: "ngrams"}} if config.ngram_buckets else {})}),
        ExportPart("decoder", _Decoder(model).eval(), decoder, ("logits", "present"),
                   {**axes, "attention_mask": {0: "batch", 1: "whole"}, "past": {2: "batch", 4: "past"}}),
    )  # fmt: skip
    answers = _Answers(config, processor)
    return ExportPlan(parts, answers, {"selection_logits": 1e-3, "token_logits": 1e-3})


def selected(
    run: Any, config: PreTrainedConfig, processor: ProcessorMixin, tasks: Sequence[str], images: Sequence[Any]
) -> np.ndarray:
    """Return log-odds [B, R] for tasks and pictures (None = no picture) with any engine."""
    batch = processor.prompts(tasks, images)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    inputs["image_tokens"] = image_tokens(run, config, batch.get("pixel_values"), _shown(images))
    if config.ngram_buckets:
        inputs["ngram_ids"] = batch["ngram_ids"]
    return np.asarray(run("select", inputs)["selection_logits"], dtype=np.float64)


def image_tokens(run: Any, config: PreTrainedConfig, pixels: Tensor | None, shown: Tensor) -> Tensor:
    """Return [B, tokens, D] of pixels [N, 3, S, S] with any engine.

    Where `shown` [B] bool is False there is no picture, and zeros stand that nothing reads.
    """
    tokens = torch.zeros(len(shown), config.num_visual_tokens, config.text_config.hidden_size)
    if pixels is not None:
        tokens[shown] = torch.as_tensor(np.asarray(run("vision", {"pixel_values": pixels})["image_tokens"])).float()
    return tokens


def _shown(images: Sequence[Any]) -> Tensor:
    return torch.tensor([image is not None for image in images])


class _Answers:
    """Answers rows: the chosen set, and the first written tokens."""

    def __init__(self, config: PreTrainedConfig, processor: ProcessorMixin) -> None:
        self.config, self.processor = config, processor

    def __call__(self, run: Any, rows: Sequence[Mapping[str, Any]]) -> Answers:
        logits, decisions, exact, jaccard = [], [], [], []
        written: list[np.ndarray] = []
        for row in rows:
            found = selected(run, self.config, self.processor, [row["task"]], [row["image"]])[0]
            chosen = self._chosen(found)
            logits.append(found)
            if len(written) < _WRITTEN_ROWS:
                written.append(self._write(run, row, chosen)[1])
            decisions.append(tuple(sorted(chosen)))
            gold = set(row.get("robots") or ())
            if gold:
                exact.append(float(chosen == gold))
                jaccard.append(len(chosen & gold) / len(chosen | gold))
        scores = {"exact_match": exact, "jaccard": jaccard} if exact else {}
        return Answers({"selection_logits": logits, "token_logits": written}, decisions, scores)

    def _chosen(self, logits: np.ndarray) -> set[str]:
        probabilities = 1 / (1 + np.exp(-logits / self.config.calibration["temperature"]))
        over = set(np.flatnonzero(probabilities >= self.config.calibration["threshold"]).tolist())
        return {self.config.robots[index] for index in over | {int(probabilities.argmax())}}

    def _write(self, run: Any, row: Mapping[str, Any], chosen: Collection[str]) -> tuple[list[int], np.ndarray]:
        """Continue a prompt greedily; return the tokens, and the logits [V] of the first."""
        batch = self.processor.prompts([row["task"]], [row["image"]], reasoning=True, picked=[list(chosen)])
        text = self.config.text_config
        image = image_tokens(run, self.config, batch.get("pixel_values"), _shown([row["image"]]))
        past = torch.zeros(past_shape(text, 1, 0))
        ids, mask, tokens, first = batch["input_ids"], batch["attention_mask"], [], None
        for _ in range(_WRITTEN_TOKENS):
            found = run("decoder", {"input_ids": ids, "attention_mask": mask, "image_tokens": image, "past": past})
            logits = np.asarray(found["logits"], dtype=np.float64)[0]
            first = logits if first is None else first
            tokens.append(int(logits.argmax()))
            if tokens[-1] == text.eos_token_id or mask.shape[1] + 1 >= text.max_position_embeddings:
                break
            ids, past = torch.tensor([[tokens[-1]]]), torch.as_tensor(np.asarray(found["present"])).float()
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
        return tokens, first if first is not None else np.zeros(0)
