"""What InternVL for retrieval needs around its tensors: pictures, texts, and back to boxes and words."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from hfvla.data.boxes import HORIZONTAL, VERTICAL
from hfvla.data.pictures import load_picture
from hfvla.data.text import clean_text
from hfvla.errors import DataError
from hfvla.loading import check_same
from hfvla.models.internvl_retrieval.configuration_internvl_retrieval import InternVLRetrievalConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["IMAGE_PROMPT_TEXT", "InternVLRetrievalProcessor"]

logger = logging.getLogger(__name__)

IMAGE_PROMPT_TEXT = "The place in this picture, in one word:"
"""What stands before the image for `image_from: language`."""


class InternVLRetrievalProcessor(ProcessorMixin):
    """Image processor and tokenizer, saved together.

    Texts for a language model end with the tokenizer's end token, whose state is the text's in `text_pooling: last`,
    and are padded on the left; texts for an encoder (a tokenizer with a class token) have its special tokens around
    them, and are padded on the right. A picture becomes one square; boxes are shares of it and stay what they are.

    Args:
        image_processor: resizes and normalises, and cuts no tiles.
        tokenizer: fast tokenizer of the text encoder, or one with `start_image_token`, `context_image_token` and
            `end_image_token`.
        max_text_tokens (`int`): longer texts are cut there, before the end token.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor = None,
        tokenizer: PreTrainedTokenizerBase = None,
        max_text_tokens: int = 256,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.max_text_tokens = max_text_tokens
        self._cut_before = False

    @property
    def for_encoder(self) -> bool:
        """Whether texts are for an encoder, with special tokens around them."""
        return self.tokenizer.cls_token_id is not None

    @property
    def tokenizer_rules(self) -> dict[str, Any]:
        """What the tokenizer does to a text, as data; its files also say how it was used last."""
        return json.loads(self.tokenizer.backend_tokenizer.to_str())

    def special_ids(self) -> dict[str, Any]:
        """Return `image_token_id` and `image_prompt`, which the config must know; {} for an encoder."""
        if self.for_encoder:
            return {}
        tokenizer = self.tokenizer
        before = f"{IMAGE_PROMPT_TEXT} {tokenizer.start_image_token}"
        after = [*self._ids(tokenizer.end_image_token), tokenizer.eos_token_id]
        return {
            "image_token_id": tokenizer.convert_tokens_to_ids(tokenizer.context_image_token),
            "image_prompt": {"before": self._ids(before), "after": after},
        }

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse a config that this processor does not fit.

        Raises:
            CheckpointError: another prompt around a picture, picture size, length or tokens.
        """
        side, text, ids = self.image_processor.size, config.get_text_config(), self.special_ids()
        pairs: dict[str, tuple[Any, Any]] = {"text encoder": (self.for_encoder, config.two_towers)}
        if ids and not config.two_towers:
            pairs["image_token_id"] = (ids["image_token_id"], config.backbone_config.image_token_id)
            pairs["image_prompt"] = (ids["image_prompt"], config.image_prompt)
        pairs |= {
            "image_size": ([side["height"], side["width"]], [config.image_size, config.image_size]),
            "max_text_tokens": (self.max_text_tokens, config.max_text_tokens),
            "tokens": (max(len(self.tokenizer), text.vocab_size), text.vocab_size),
        }
        check_same("InternVLRetrievalProcessor", pairs)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    # ---- pictures ---------------------------------------------------------------------------------------------------

    def images(self, images: Sequence[Any], where: Sequence[str] | None = None) -> Tensor:
        """Return `pixel_values` [N, 3, S, S] of pictures.

        Args:
            images: paths or PIL images.
            where: name of each, for errors.

        Raises:
            DataError: a picture is missing or cannot be read.
        """
        names = where or [str(image) for image in images]
        pictures = [_opened(image, name) for image, name in zip(images, names, strict=True)]
        # Named in the call: among the processor's own settings some releases ignore it.
        whole = {} if self.for_encoder else {"crop_to_patches": False}
        return self.image_processor(pictures, return_tensors="pt", **whole)["pixel_values"]

    # ---- texts ------------------------------------------------------------------------------------------------------

    def texts(self, texts: Sequence[str], where: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask` [N, T] of texts, padded on the left, or for an encoder on the right.

        Args:
            texts: at least one.
            where: name of each, for errors.

        Raises:
            DataError: an empty text.
        """
        names = where or [repr(text) for text in texts]
        for text, name in zip(texts, names, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise DataError("a text is empty or no text", where=name, got=text, expected="a string with words")
        rows = self.tokenizer([clean_text(text) for text in texts], add_special_tokens=False).input_ids
        around = self.tokenizer.num_special_tokens_to_add() if self.for_encoder else 1
        most = self.max_text_tokens - around
        longest = max(range(len(rows)), key=lambda row: len(rows[row]))
        if len(rows[longest]) > most and not self._cut_before:
            self._cut_before = True
            logger.warning(
                "%s has %d tokens: texts are cut at %d; raise max_text_tokens to read all",
                names[longest], len(rows[longest]), most,
            )  # fmt: skip
        if self.for_encoder:
            return dict(
                self.tokenizer(
                    [clean_text(text) for text in texts],
                    truncation=True,
                    max_length=self.max_text_tokens,
                    padding=True,
                    padding_side="right",
                    return_token_type_ids=False,
                    return_tensors="pt",
                )
            )
        ids = [[*row[:most], self.tokenizer.eos_token_id] for row in rows]
        width = max(map(len, ids))
        pad = self.tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([[pad] * (width - len(row)) + row for row in ids]),
            "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
        }

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """Encode pictures (paths or PIL images) and texts, each one or several, for `model(**batch)`.

        Raises:
            DataError: a picture cannot be read, a text is empty, or neither is given.
        """
        if images is None and text is None:
            raise DataError("nothing to encode", where="InternVLRetrievalProcessor", expected="images, text or both")
        batch: dict[str, Tensor] = {}
        if images is not None:
            batch["pixel_values"] = self.images(list(images) if isinstance(images, list | tuple) else [images])
        if text is not None:
            batch |= self.texts([text] if isinstance(text, str) else list(text))
        return BatchFeature(batch)

    # ---- back to boxes and words ------------------------------------------------------------------------------------

    @staticmethod
    def boxes_to_pixels(boxes: Tensor, width: int, height: int) -> Tensor:
        """Return corners (left, top, right, bottom) in pixels of boxes [..., 4], cxcywh as shares of the picture."""
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        corners = torch.cat([centre - half, centre + half], dim=-1).clamp(0, 1)
        return corners * corners.new_tensor([width, height, width, height])

    @staticmethod
    def relation_words(spatial_logits: Tensor) -> Mapping[str, Any]:
        """Return {"horizontal", "vertical"} of logits [6]: where B lies from A."""
        across, down = int(spatial_logits[:3].argmax()), int(spatial_logits[3:].argmax())
        return {"horizontal": HORIZONTAL[across], "vertical": VERTICAL[down]}


def _opened(image: Any, name: str) -> Any:
    """Return a PIL image in RGB, by the rules of `hfvla.data.pictures`."""
    try:
        return load_picture(image, name)
    except DataError as error:
        cause = error if error.__cause__ is None else error.__cause__
        raise DataError(
            "the picture cannot be read", where=name, got=str(image), fix=f"{type(cause).__name__}: {cause}"
        ) from None


AutoProcessor.register(InternVLRetrievalConfig, InternVLRetrievalProcessor, exist_ok=True)
