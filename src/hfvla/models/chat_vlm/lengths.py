"""How many tokens a conversation has, its pictures' and videos' included, without decoding one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfvla.data.pictures import picture_size
from hfvla.data.samples.chat import ChatSample
from hfvla.data.samples.chat_pictures import encoded_bytes
from hfvla.models.chat_vlm.rendering import render
from hfvla.models.chat_vlm.videos import locate_clip

if TYPE_CHECKING:
    from transformers import ProcessorMixin

__all__ = ["TokenLengths"]


class TokenLengths:
    """Counts the tokens of conversations.

    What a picture of a size costs is asked of the processor itself, once for each size, with a blank one in its place:
    every processor has a rule of its own (tiles, thumbnails, marks of rows and columns).

    Args:
        processor: of the model.
    """

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor
        self._costs: dict[tuple[tuple[int, int], ...], int] = {}
        self._clip_costs: dict[tuple[Any, ...], int] = {}

    def __call__(self, sample: ChatSample) -> int:
        """Return the tokens of a whole conversation.

        Raises:
            DataError: a picture's or video's header cannot be read, or the conversation cannot be rendered.
        """
        where = f"row '{sample.id}'"
        rendered = render(self.processor, sample.turns, where)
        text = rendered.text if rendered.suffix is None else f"{rendered.text}\n{rendered.suffix}"
        tokens = len(self.processor.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
        if rendered.suffix is not None:
            tokens += 2  # the marks of beginning and end that the processor writes
        sizes = tuple(
            picture_size(encoded_bytes(image, where), f"{where}, picture {number}")
            for number, image in enumerate(sample.images)
        )
        clips = sum(self._clip_cost(path, f"{where}, video {number}") for number, path in enumerate(sample.videos))
        return tokens + clips + (self._cost(sizes) if sizes else 0)

    def _clip_cost(self, path: str, where: str) -> int:
        """Return what a video adds to its placeholder; its frames are asked for without their pixels."""
        import torch

        (frames, height, width), told = locate_clip(self.processor, path, where)
        key = (frames, height, width, told.fps, told.duration, *told.frames_indices)
        if key not in self._clip_costs:
            shown = str(self.processor.video_token)
            blank = torch.empty(frames, 3, height, width, dtype=torch.uint8, device="meta")
            _, texts = self.processor._process_videos([blank], **self._video_settings(told))
            bare, written = (
                self.processor.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
                for text in (shown, texts[0])
            )
            self._clip_costs[key] = len(written) - len(bare)
        return self._clip_costs[key]

    def _video_settings(self, told: Any) -> dict[str, Any]:
        """Return what a processor hands to its video processor."""
        given = {"video_metadata": [told], "do_sample_frames": False, "return_tensors": "pt"}
        merged = self.processor._merge_kwargs(tokenizer_init_kwargs=self.processor.tokenizer.init_kwargs, **given)
        return dict(merged["videos_kwargs"])

    def _cost(self, sizes: tuple[tuple[int, int], ...]) -> int:
        """Return what pictures add to the placeholders that stand for them.

        They are asked for together: some models cut fewer tiles of each where there are several.
        """
        if sizes not in self._costs:
            from PIL import Image

            token = self.processor.image_token
            token = getattr(self.processor, "boi_token", None) or token  # Gemma writes a mark where others have it
            shown = token * len(sizes)
            blank = [Image.new("RGB", size) for size in sizes]
            batch = self.processor(text=[shown], images=[blank], add_special_tokens=False, return_tensors="pt")
            bare = len(self.processor.tokenizer(shown, add_special_tokens=False).input_ids)
            extra = (
                2 if hasattr(type(self.processor), "prepare_inputs_layout") and batch.get("labels") is not None else 0
            )
            self._costs[sizes] = int(batch["input_ids"].shape[1]) - extra - bare
        return self._costs[sizes]
