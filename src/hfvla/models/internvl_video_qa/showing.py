"""An answer about a clip to look at: its probabilities, and what each frame counted for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image

from hfvla.family import Shown
from hfvla.models.internvl_video_qa.answering import VideoFeatures
from hfvla.models.internvl_video_qa.frames import choose_times

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA

__all__ = ["frame_weights", "show"]


def frame_weights(
    model: InternVLForVideoQA,
    processor: ProcessorMixin,
    features: VideoFeatures,
    question: str,
    choices: list[str],
    index: int,
) -> list[float]:
    """Return by how much the probability of a choice falls when each frame is left out.

    Args:
        model: `InternVLForVideoQA`.
        processor: its processor.
        features: of the clip.
        question: its text.
        choices: 2 to 4 texts.
        index: of the choice.
    """
    whole = model.answer_features(processor, features, [(question, choices)])[0].probabilities[index]
    weights, start = [], 0
    for number, count in enumerate(features.frame_tiles):
        kept = [*range(start), *range(start + count, len(features.features))]
        tiles = (*features.frame_tiles[:number], *features.frame_tiles[number + 1 :])
        start += count
        left = VideoFeatures(features.features[kept], tiles)
        weights.append(whole - model.answer_features(processor, left, [(question, choices)])[0].probabilities[index])
    return weights


def show(
    model: InternVLForVideoQA, processor: ProcessorMixin, request: Mapping[str, Any], reply: Mapping[str, Any]
) -> Shown:
    """Return an answer of `predict` as a person looks at it."""
    if not request.get("choices"):
        return Shown(reply["text"] or "Nothing was written.", {})
    video, choices = str(request["video"]), list(request["choices"])
    support = request.get("support_frames") or ()
    clip = processor.read_clip(video, support)
    times_s, _ = choose_times(support, processor.duration_s(video), processor.frames, "support", video)
    letters = list(reply["probabilities"])
    confidences = {f"{letter}. {choices[n]}": reply["probabilities"][letter] for n, letter in enumerate(letters)}
    text = f"**{reply['letter']}. {reply['answer']}**" if reply["answer"] else f"No answer: {reply['reason']}"
    shown: list[tuple[Any, str]] = []
    if reply["letter"] and len(clip.pixels) > 1:
        features = model.encode_video(processor, video, support)
        place = letters.index(reply["letter"])
        weights = frame_weights(model, processor, features, request["question"], choices, place)
        best = max(range(len(weights)), key=lambda n: weights[n])
        for number, (pixels, weight) in enumerate(zip(clip.pixels, weights, strict=True)):
            mark = " (counts most)" if number == best and weight > 0 else ""
            shown.append((Image.fromarray(pixels), f"{times_s[number]:.1f} s: {weight:+.3f}{mark}"))
        text += "\n\nUnder each frame: how far the answer's probability falls when the frame is left out."
    return Shown(text, confidences, pictures=shown)
