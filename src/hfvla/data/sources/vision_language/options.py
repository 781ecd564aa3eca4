"""What a recipe may say about vision-language sets on disk and on a hub."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from hfvla.paths import UserPath

__all__ = ["Columns", "FormatName", "HubOptions", "Prompts", "VisionLanguageOptions"]

FormatName = Literal[
    "auto",
    "coco_captions",
    "coco_instances",
    "vqa",
    "aokvqa",
    "gqa",
    "ocr_vqa",
    "textvqa",
    "textcaps",
    "refcoco",
    "visual_genome",
    "llava",
    "messages",
    "preference",
    "webdataset",
    "captioned_files",
    "table",
]
"""Names of the formats; "auto" tells them by their content."""


class Columns(BaseModel):
    """Which field of a record, or column of a table, holds what; for sets of no known format.

    Attributes:
        image: path below the folder of pictures, the encoded bytes, a list of either, or a template over the record's
            fields, e.g. "{image_id:012d}.jpg".
        text: caption.
        question: asked about the picture.
        answer: its answer, or a list of accepted ones.
        messages: conversation as OpenAI, TRL or ShareGPT write it.
        id: of the record.
        group: what must not cross a split; the picture when absent.
        split: official split of the record.
        kind: of question or task, for scores by kind.
        system: system turn.
        weight: of the sample's loss, a number from 0 up.
    """

    model_config = ConfigDict(extra="forbid")

    image: str | None = None
    text: str | None = None
    question: str | None = None
    answer: str | None = None
    messages: str | None = None
    id: str | None = None
    group: str | None = None
    split: str | None = None
    kind: str | None = None
    system: str | None = None
    weight: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.question is None) != (self.answer is None):
            raise ValueError("`question` and `answer` belong together")
        if sum(value is not None for value in (self.text, self.question, self.messages)) != 1:
            raise ValueError("one of `text`, `question` with `answer`, or `messages` is needed")
        return self


class Prompts(BaseModel):
    """What the user's turn says where a set has no words of its own.

    Attributes:
        caption: asks for a caption.
        answer: follows a question that is answered in a word or two; "" for the question alone.
        choices: stands before the choices of a question; {choices} is their list.
        locate: asks for a box; {label} is what to find.
        region: asks for a description; {box} is where.
    """

    model_config = ConfigDict(extra="forbid")

    caption: str = "Describe the picture in one sentence."
    answer: str = ""
    choices: str = "Choices: {choices}."
    locate: str = "Where is {label}? Answer with left, top, right, bottom."
    region: str = "Describe the region {box}."

    @field_validator("choices", "locate", "region")
    @classmethod
    def _has_its_place(cls, value: str, info: ValidationInfo) -> str:
        place = {"choices": "choices", "locate": "label", "region": "box"}[str(info.field_name)]
        try:
            filled = value.format(**{place: "\0"})
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"only {{{place}}} has a place in it, and other braces are doubled") from error
        if "\0" not in filled:
            raise ValueError(f"{{{place}}} has no place in it")
        return value


class _Reading(BaseModel):
    """What all vision-language sources have.

    Attributes:
        split: official splits to read ("train", "val", "test", or a set's own as "testA"); records of a set without
            splits belong to each; "all" reads everything. Validation and test records train only where this says so.
        mapping: see `Columns`; found by the usual names when absent.
        check_images: how far each picture is looked at before training: that it is there ("exists"), to its header, or
            to its last byte ("decode"). What fails is counted and named; damage that was not looked for stops training
            with the picture's name.
        write_rationales: begin an answer with the reason for it, where the set has one.
        choices: put the choices of a question into its prompt, where the set has them.
        box_text: numbers of a box in texts: shares of the picture ("unit"), thousandths, or pixels.
        prompts: see `Prompts`.
        loss_weight: of each answer's tokens in the loss, beside those of other sources; a record's own `weight` is
            multiplied by it. How often a source is seen is its `weight` in the recipe.
        max_bad_fraction: share of unusable records above which reading fails.
        streaming: read as training goes on, as a `datasets.IterableDataset`, in place of a table on disk.
        cache_dir: folder of the tables; the cache of `datasets` when absent.
    """

    model_config = ConfigDict(extra="forbid")

    split: str | tuple[str, ...] = "train"
    mapping: Columns | None = None
    check_images: Literal["exists", "header", "decode"] = "header"
    write_rationales: bool = False
    choices: bool = False
    box_text: Literal["unit", "thousandths", "pixels"] = "unit"
    prompts: Prompts = Prompts()
    loss_weight: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    streaming: bool = False
    cache_dir: UserPath | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """`split` as a tuple."""
        return (self.split,) if isinstance(self.split, str) else self.split


class VisionLanguageOptions(_Reading):
    """What a recipe may say about files of vision-language sets; see also `_Reading`.

    Attributes:
        path: a file, or a folder that holds any of them: every file is told by its content, and named with what it was
            taken for.
        format: of all files at `path`; "auto" tells each by its content.
        images: folder of the pictures; when absent they are looked for below `path`, or beside the file.
        follow_links: take pictures and files behind links that lead out of the folder.
    """

    path: UserPath
    format: FormatName = "auto"
    images: UserPath | None = None
    follow_links: bool = False


class HubOptions(_Reading):
    """What a recipe may say about a data set of the hub, or a folder that `datasets.load_dataset` reads.

    Attributes:
        repo: its name on the hub, e.g. "lmms-lab/textvqa"; `name` will do too, except under `train` of a recipe, where
            it is the entry's own name.
        config: of the data set.
        revision: branch, tag or commit.
    """

    repo: str = Field(min_length=1)
    config: str | None = None
    revision: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_is_repo(cls, values: Any) -> Any:
        if isinstance(values, dict) and "name" in values and "repo" not in values:
            return {("repo" if key == "name" else key): value for key, value in values.items()}
        return values
