"""What other programs can have of this family's models: the backbone alone, and two graphs.

tiles      pixels of one tile or more                 -> image tokens
letters    prompt, image tokens, which letters there are -> log-likelihood of each letter
words      prompts with an answer each, image tokens, places and tokens of the answers -> mean log-likelihood per token

The last two are the two ways to answer (`config.answer_by`); a model has the graph of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.family import Answers, ExportPart, ExportPlan, PlainBackbone
from hfvla.models.internvl_video_qa.exported import NO_LETTER, exported_model
from hfvla.models.internvl_video_qa.wording import PromptItem

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA

__all__ = ["export_plan", "plain_backbone"]

_WORDS = 9


def plain_backbone(model: InternVLForVideoQA, processor: ProcessorMixin) -> PlainBackbone:
    """Return the image-text model of transformers that is wrapped as it is, with tokenizer and image processor."""
    return PlainBackbone("backbone", model.backbone, (processor.tokenizer, processor.image_processor), "backbone")


class _Tiles(nn.Module):
    """[N, 3, S, S] pixels to [N, tokens, D]."""

    def __init__(self, model: InternVLForVideoQA) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        return (self.model.get_image_features(pixel_values),)


class _Prompt(nn.Module):
    """Prompts with their image tokens through the language model, without `masked_scatter`, which ONNX lacks."""

    def __init__(self, model: InternVLForVideoQA) -> None:
        super().__init__()
        self.model, self.words = model, model.get_input_embeddings()
        self.image_token_id = model.config.backbone_config.image_token_id

    def hidden(self, input_ids: Tensor, attention_mask: Tensor, image_tokens: Tensor) -> Tensor:
        """Return the last states [B, T, D]; the first of `image_tokens` [B, M, D] go to the placeholders of a row."""
        image = input_ids == self.image_token_id
        place = (image.long().cumsum(1) - 1).clamp(min=0)
        found = image_tokens.gather(1, place[..., None].expand(-1, -1, image_tokens.shape[-1]))
        words = self.words(input_ids)
        return self.model.backbone.model.language_model(
            inputs_embeds=torch.where(image[..., None], found.to(words.dtype), words), attention_mask=attention_mask,
            use_cache=False,
        ).last_hidden_state  # fmt: skip


class _Letters(_Prompt):
    """What the model's `forward` computes of a question."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, image_tokens: Tensor, letter_mask: Tensor
    ) -> tuple[Tensor]:
        hidden = self.hidden(input_ids, attention_mask, image_tokens)
        # A gather and no index of rows: positions of the last valid token, with padding on either side.
        last = (attention_mask.long() * torch.arange(attention_mask.shape[1])).argmax(1)
        final = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
        letters = self.model.backbone.lm_head(final).float().log_softmax(-1)[:, self.model.config.letter_token_ids]
        return (letters.masked_fill(~letter_mask, NO_LETTER),)


class _Words(_Prompt):
    """What `answer_log_likelihoods` computes; `places` [B, K] are before the answers' tokens, -1 = none."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, image_tokens: Tensor, places: Tensor, tokens: Tensor
    ) -> tuple[Tensor]:
        hidden = self.hidden(input_ids, attention_mask, image_tokens)
        at = places.clamp(min=0)[..., None]
        logits = self.model.backbone.lm_head(hidden.gather(1, at.expand(-1, -1, hidden.shape[-1]))).float()
        found = logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]
        there = (places >= 0).to(found.dtype)
        return ((found * there).sum(1) / there.sum(1).clamp(min=1),)


def export_plan(model: InternVLForVideoQA, processor: ProcessorMixin) -> ExportPlan:
    """Return the graphs of this model; a question is answered by a letter, or by a choice's words."""
    config = model.config
    width, tokens = config.get_text_config().hidden_size, config.tokens_per_tile
    pixels = torch.zeros(2, 3, config.tile_size, config.tile_size)
    prompt = torch.full((2, 2 * tokens + _WORDS), config.backbone_config.image_token_id)
    prompt[:, 2 * tokens :] = torch.arange(_WORDS) + 12
    inputs = {
        "input_ids": prompt, "attention_mask": torch.ones_like(prompt),
        "image_tokens": torch.zeros(2, 2 * tokens, width),
    }  # fmt: skip
    batch, time = {0: "batch"}, {0: "batch", 1: "time"}
    axes = {"input_ids": time, "attention_mask": time, "image_tokens": {0: "batch", 1: "image"}}
    tiles = ExportPart(
        "tiles", _Tiles(model).eval(), {"pixel_values": pixels}, ("tokens",), {"pixel_values": {0: "tiles"}}
    )
    if config.answer_by == "words":
        places = torch.arange(2 * tokens, 2 * tokens + 6).view(2, 3)
        inputs |= {"places": places, "tokens": torch.full_like(places, 12)}
        axes |= {name: {0: "batch", 1: "answer"} for name in ("places", "tokens")}
        answers = ExportPart("words", _Words(model).eval(), inputs, ("log_likelihoods",), axes)
    else:
        inputs["letter_mask"] = torch.ones(2, len(config.letter_token_ids), dtype=torch.bool)
        answers = ExportPart(
            "letters", _Letters(model).eval(), inputs, ("log_likelihoods",), axes | {"letter_mask": batch}
        )
    return ExportPlan((tiles, answers), _Answers(config, processor), {"log_likelihoods": 1e-3})


class _Answers:
    """Answers rows one by one, as the model does with the engine's graphs in its place."""

    def __init__(self, config: PreTrainedConfig, processor: ProcessorMixin) -> None:
        self.config, self.processor = config, processor

    def __call__(self, run: Any, rows: Sequence[Mapping[str, Any]]) -> Answers:
        model = exported_model(run, self.config)
        values, decisions, right = [], [], []
        for row in rows:
            clip = model.encode_video(self.processor, row["video"], row["support_frames"])
            item = PromptItem(row["question"], row["choices"], clip.frame_tiles)
            found = model.choice_logits(self.processor, [item], clip.features)[0, : len(item.choices)]
            values.append(found.double().numpy())
            decisions.append(int(found.argmax()))
            if int(row["answer"]) >= 0:
                right.append(float(decisions[-1] == int(row["answer"])))
        return Answers({"log_likelihoods": values}, decisions, {"accuracy": right} if right else {})
