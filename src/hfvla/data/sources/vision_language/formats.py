"""The formats of vision-language sets: how each is told by its content, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hfvla.data.samples.chat import ChatSample
from hfvla.data.sources.vision_language import (
    captioned,
    coco,
    conversations,
    generic,
    question_sets,
    refcoco,
    shards,
    visual_genome,
    vqa,
)
from hfvla.data.sources.vision_language.heads import Head
from hfvla.data.sources.vision_language.reading import Reading
from hfvla.data.sources.vision_language.records import Taken

__all__ = ["FORMATS", "Format", "recognise"]


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: as recipes have it.
        files: what its files hold, for the docs.
        becomes: what a record becomes, for the docs.
        told: says by the head of a file whether it is of this format.
        read: yields the samples of files.
    """

    name: str
    files: str
    becomes: str
    told: Callable[[Head], bool]
    read: Callable[[Taken, Reading], Iterator[ChatSample]]


def _has(head: Head, *keys: str) -> bool:
    return all(key in head.first for key in keys)


def _is_preference(head: Head) -> bool:
    return _has(head, "chosen", "rejected")


def _said(head: Head) -> Mapping[str, Any]:
    """Return the first message of the first record."""
    for key in ("messages", "conversations", "conversation", "texts"):
        value = head.first.get(key)
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return value[0]
    return {}


def _part(head: Head) -> Mapping[str, Any]:
    """Return the first part of an object of records."""
    return next((head.section(name) for name in head.sections if head.section(name)), {})


FORMATS: tuple[Format, ...] = (
    Format(
        "coco_captions",
        "`captions_*.json`: `images`, `annotations` with `caption`",
        "a caption of a picture, all its captions as references",
        lambda head: "caption" in head.section("annotations") and "image_id" in head.section("annotations"),
        coco.read_captions,
    ),
    Format(
        "coco_instances",
        "`instances_*.json`: `images`, `annotations` with `bbox`, `categories`",
        "a question for the boxes of a category in a picture; crowds marked",
        lambda head: "bbox" in head.section("annotations") and "category_id" in head.section("annotations"),
        coco.read_instances,
    ),
    Format(
        "vqa",
        "VQAv2, OK-VQA: `*_questions.json` with `*_annotations.json` of the same `data_subtype`",
        "a question; the answer of most is learned, all ten are references",
        lambda head: vqa.is_questions(head) or vqa.is_answers(head),
        vqa.read_vqa,
    ),
    Format(
        "aokvqa",
        "`aokvqa_v1p0_*.json`: list with `choices`, `correct_choice_idx`, `direct_answers`, `rationales`",
        "a question; the right choice is learned, direct answers are references, rationales kept or written",
        lambda head: _has(head, "question_id", "image_id", "question", "choices"),
        question_sets.read_aokvqa,
    ),
    Format(
        "gqa",
        "`*_questions.json`: `{qid: {question, answer, fullAnswer, imageId}}`",
        "a question; the full answer is a detail",
        lambda head: {"imageId", "question"} <= _part(head).keys(),
        question_sets.read_gqa,
    ),
    Format(
        "ocr_vqa",
        "`dataset.json`: `{id: {imageURL, questions, answers, split}}`",
        "a sample a question of the cover",
        lambda head: {"imageURL", "questions"} <= _part(head).keys(),
        question_sets.read_ocr_vqa,
    ),
    Format(
        "textvqa",
        "`TextVQA_*.json`: `data` with `question`, `answers`, `image_id`",
        "a question; the answer of most is learned, all ten are references",
        lambda head: {"question", "image_id", "question_id"} <= head.section("data").keys(),
        question_sets.read_textvqa,
    ),
    Format(
        "textcaps",
        "`TextCaps_*.json`: `data` with `caption_str`, `reference_strs`, `image_path`",
        "a caption, all captions of the picture as references",
        lambda head: {"caption_str", "image_id"} <= head.section("data").keys(),
        question_sets.read_textcaps,
    ),
    Format(
        "refcoco",
        "RefCOCO/+/g: `refs(unc\\|umd\\|google).p` with `instances.json`, or records with `sentences` and `bbox`",
        "a question for the box of each expression",
        refcoco.is_refcoco,
        refcoco.read_refcoco,
    ),
    Format(
        "visual_genome",
        "`region_descriptions.json`: list of `regions` with `phrase`, `x`, `y`, `width`, `height`",
        "a question for the phrase of each region",
        visual_genome.is_visual_genome,
        visual_genome.read_visual_genome,
    ),
    Format(
        "preference",
        "TRL: `prompt`, `chosen`, `rejected`, `images`",
        "a conversation with the rejected turns beside it",
        _is_preference,
        conversations.read_conversations,
    ),
    Format(
        "llava",
        "LLaVA-Instruct, ShareGPT: `conversations` of `from` and `value`, `image`",
        "a conversation",
        lambda head: "from" in _said(head),
        conversations.read_conversations,
    ),
    Format(
        "messages",
        "OpenAI, TRL: `messages` of `role` and `content`, `images`, `videos`; Cauldron, FineVision: `texts`",
        "a conversation",
        lambda head: "role" in _said(head) or {"user", "assistant"} <= _said(head).keys(),
        conversations.read_conversations,
    ),
    Format(
        "webdataset",
        "CC3M, LAION: tars of `jpg` with `txt` or `json` (webdataset, img2dataset)",
        "a caption, or the conversation in the JSON; the picture stays in its shard",
        shards.is_shard,
        shards.read_shards,
    ),
    Format(
        "captioned_files",
        "folders of pictures with a `.txt` of the same name beside each",
        "a caption",
        lambda head: head.kind == "folder",
        captioned.read_captioned,
    ),
    Format(
        "table",
        "JSON list, JSON lines, Parquet, TSV or CSV with pictures and texts",
        "a caption or a question with its answer, by `mapping` or the usual names",
        lambda head: generic.columns_of(head)[0] is not None,
        generic.read_table,
    ),
)
"""The first that tells a file is its format."""


def recognise(head: Head) -> Format | None:
    """Return the format of a file, None where nothing tells it."""
    return next((one for one in FORMATS if one.told(head)), None)
