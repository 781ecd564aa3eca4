"""What other programs can have of this family's models: the backbone alone, and two graphs.

tiles      pixels of one tile or more                 -> image tokens
letters    prompt, image tokens, which letters there are -> log-likelihood of each letter
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hfvla.family import Answers, ExportPart, ExportPlan, PlainBackbone
from hfvla.models.internvl_video_qa.batches import InternVLVideoQACollator

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA

__all__ = ["export_plan", "plain_backbone"]

_WORDS = 9
_NO_LETTER = -1e4  # in place of -inf, which would make every comparison NaN


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


class _Letters(nn.Module):
    """What the model's `forward` computes of a question, without `masked_scatter`, which ONNX lacks."""

    def __init__(self, model: InternVLForVideoQA) -> None:
        super().__init__()
        self.model, self.words = model, model.get_input_embeddings()
        self.image_token_id = model.config.backbone_config.image_token_id

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, image_tokens: Tensor, letter_mask: Tensor
    ) -> tuple[Tensor]:
        image = input_ids == self.image_token_id
        place = (image.long().cumsum(1) - 1).clamp(min=0)
        found = image_tokens.gather(1, place[..., None].expand(-1, -1, image_tokens.shape[-1]))
        words = self.words(input_ids)
        hidden = self.model.backbone.model.language_model(
            inputs_embeds=torch.where(image[..., None], found.to(words.dtype), words), attention_mask=attention_mask,
            use_cache=False,
        ).last_hidden_state  # fmt: skip
        # A gather and no index of rows: positions of the last valid token, with padding on either side.
        last = (attention_mask.long() * torch.arange(attention_mask.shape[1])).argmax(1)
        final = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
        letters = self.model.backbone.lm_head(final).float().log_softmax(-1)[:, self.model.config.letter_token_ids]
        return (letters.masked_fill(~letter_mask, _NO_LETTER),)


def export_plan(model: InternVLForVideoQA, processor: ProcessorMixin) -> ExportPlan:
    """Return the graphs of this model; a question is answered by a letter."""
    config = model.config
    width, tokens = config.get_text_config().hidden_size, config.tokens_per_tile
    pixels = torch.zeros(2, 3, config.tile_size, config.tile_size)
    prompt = torch.full((2, 2 * tokens + _WORDS), config.backbone_config.image_token_id)
    prompt[:, 2 * tokens :] = torch.arange(_WORDS) + 12
    inputs = {
        "input_ids": prompt, "attention_mask": torch.ones_like(prompt),
        "image_tokens": torch.zeros(2, 2 * tokens, width),
        "letter_mask": torch.ones(2, len(config.letter_token_ids), dtype=torch.bool),
    }  # fmt: skip
    batch, time = {0: "batch"}, {0: "batch", 1: "time"}
    axes = {"input_ids": time, "attention_mask": time, "image_tokens": {0: "batch", 1: "image"}, "letter_mask": batch}
    parts = (
        ExportPart(
            "tiles", _Tiles(model).eval(), {"pixel_values": pixels}, ("tokens",), {"pixel_values": {0: "tiles"}}
        ),
        ExportPart("letters", _Letters(model).eval(), inputs, ("log_likelihoods",), axes),
    )
    return ExportPlan(parts, _Answers(config, processor), {"log_likelihoods": 1e-3})


class _Answers:
    """Answers rows one by one; every different tile of a clip is encoded once."""

    def __init__(self, config: PreTrainedConfig, processor: ProcessorMixin) -> None:
        self.config, self.collator = config, InternVLVideoQACollator(processor, config, training=False)

    def __call__(self, run: Any, rows: Sequence[Mapping[str, Any]]) -> Answers:
        values, decisions, right = [], [], []
        for row in rows:
            batch = self.collator([row])
            tokens = np.asarray(run("tiles", {"pixel_values": batch["pixel_values"]})["tokens"])
            shown = tokens if batch.get("tile_index") is None else tokens[batch["tile_index"].numpy()]
            mask = batch.get("letter_mask")
            mask = torch.ones(1, len(self.config.letter_token_ids), dtype=torch.bool) if mask is None else mask
            given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "letter_mask": mask}
            given["image_tokens"] = torch.as_tensor(shown).float().reshape(1, -1, shown.shape[-1])
            found = np.asarray(run("letters", given)["log_likelihoods"], dtype=np.float64)[0]
            values.append(found[mask[0].numpy()])
            decisions.append(int(found.argmax()))
            if int(row["answer"]) >= 0:
                right.append(float(decisions[-1] == int(batch["letter_labels"][0])))
        return Answers({"log_likelihoods": values}, decisions, {"accuracy": right} if right else {})
