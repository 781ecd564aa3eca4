"""What EmberVLM needs around its tensors: prompts, pictures, targets, and back from tokens to robots and plans."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from hfvla.data.ngrams import hashed_ngrams
from hfvla.data.pictures import load_picture
from hfvla.data.reasoning import verdict_spans
from hfvla.data.samples.chat import ImageRef
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.data.samples.robots import ROBOTS, RobotAnswer, Subtask
from hfvla.data.text import clean_text
from hfvla.errors import CheckpointError, DataError
from hfvla.loading import check_same
from hfvla.models.ember_vlm.configuration_ember_vlm import SPECIAL_TOKENS, EmberVLMConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["EmberVLMProcessor", "TargetText", "load_image"]

_PLAN_STEP = re.compile(r"(?P<order>\d+)\.\s*(?P<robot>[^:;]+):\s*(?P<subtask>[^;]+)")


def load_image(image: Any, where: str = "image") -> Image.Image:
    """Return an RGB picture from bytes, a path, a PIL image or an `ImageRef`, by the rules of `hfvla.data.pictures`.

    Raises:
        DataError: the file is missing or is not a picture.
    """
    try:
        return load_reference(image, where) if isinstance(image, ImageRef) else load_picture(image, where)
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise DataError("image file not found", where=where, got=str(image), fix="Check the path.") from None
        got = f"{len(image)} bytes" if isinstance(image, bytes) else str(image)
        raise DataError(f"image cannot be decoded ({error.what}: {error.got})", where=where, got=got) from None


@dataclass(frozen=True)
class TargetText:
    """A training sequence in characters.

    Attributes:
        prompt: what is given; `<image>` stands for the picture.
        target: what is predicted, without the end token; "" for prompt-only sequences.
        verdicts: character span in `target` of each robot's yes/no, by robot name.
        given: characters of `target` at its beginning that are given too, and not learned.
    """

    prompt: str
    target: str = ""
    verdicts: Mapping[str, tuple[int, int]] | None = None
    given: int = 0


class EmberVLMProcessor(ProcessorMixin):
    """Image processor, tokenizer and the fleet, saved together.

    Args:
        image_processor: resizes and normalises pictures.
        tokenizer: fast tokenizer that knows the special tokens.
        robots (`list[str]`): fleet in label order.
        capabilities (`dict[str, str]`): what each robot can do, in words.
        num_visual_tokens (`int`): placeholders an image takes.
        max_length (`int`): positions of the language model.
        ngram_buckets (`int`): ids of the hashed n-grams; 0 = none.
        explain_decision (`bool`): the chain begins with the robots that were picked, which are told to it.
        ngram_words_apart (`bool`): words and word pairs get n-gram ids of their own, and only those of the task count.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor = None,
        tokenizer: PreTrainedTokenizerBase = None,
        robots: Sequence[str] = ROBOTS,
        capabilities: Mapping[str, str] | None = None,
        num_visual_tokens: int = 49,
        max_length: int = 1024,
        ngram_buckets: int = 0,
        explain_decision: bool = False,
        ngram_words_apart: bool = False,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.robots = list(robots)
        self.capabilities = dict(capabilities or {})
        self.num_visual_tokens = num_visual_tokens
        self.max_length = max_length
        self.ngram_buckets = ngram_buckets
        self.explain_decision = explain_decision
        self.ngram_words_apart = ngram_words_apart
        self.yes_token_id, self.no_token_id = self._verdict_ids()

    def special_ids(self) -> dict[str, int]:
        """Return the ids that the config must carry (`image_token_id` ... `no_token_id`).

        Raises:
            CheckpointError: the tokenizer lacks a special token.
        """
        vocabulary = self.tokenizer.get_vocab()
        missing = [token for token in SPECIAL_TOKENS.values() if token not in vocabulary]
        if missing or self.tokenizer.pad_token_id is None:
            raise CheckpointError(
                "the tokenizer lacks special tokens", where="EmberVLMProcessor", got=missing or "no pad token"
            )
        ids = {f"{name}_id": vocabulary[token] for name, token in SPECIAL_TOKENS.items()}
        return {**ids, "yes_token_id": self.yes_token_id, "no_token_id": self.no_token_id}

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse a config that this processor does not fit.

        Raises:
            CheckpointError: other robots or another order of them, tokens, picture size or lengths.
        """
        ids = self.special_ids()
        pairs: dict[str, tuple[Any, Any]] = {name: (value, getattr(config, name)) for name, value in ids.items()}
        side = self.image_processor.size
        pairs["image_size"] = ([side.get("height"), side.get("width")], [config.image_size, config.image_size])
        for name in ("robots", "num_visual_tokens", "ngram_buckets", "ngram_words_apart", "explain_decision"):
            pairs[name] = (getattr(self, name), getattr(config, name))
        pairs["max_length"] = (min(self.max_length, config.text_config.max_position_embeddings), self.max_length)
        pairs["tokens"] = (max(len(self.tokenizer), config.text_config.vocab_size), config.text_config.vocab_size)
        check_same("EmberVLMProcessor", pairs)

    def _verdict_ids(self) -> tuple[int, int]:
        if self.tokenizer is None:
            return -1, -1
        pieces = [self.tokenizer(f": {word},", add_special_tokens=False).input_ids for word in ("yes", "no")]
        if any(len(piece) != 3 for piece in pieces):
            raise CheckpointError(
                "' yes' and ' no' must each be one token",
                where="EmberVLMProcessor",
                got=pieces,
                expected="three tokens",
            )
        return pieces[0][1], pieces[1][1]

    # ---- pictures and prompts -------------------------------------------------------------------------------------

    def pixels(self, images: Sequence[Any]) -> Any:
        """Return [N, 3, S, S] for the pictures that are not None, or None when there is none."""
        pictures = [load_image(image) for image in images if image is not None]
        return self.image_processor(pictures, return_tensors="pt").pixel_values if pictures else None

    def task_prompt(self, task: str, *, with_image: bool, where: str = "task") -> str:
        """Return the prompt of one task.

        Raises:
            DataError: the task is empty, or has a special token in its text.
        """
        task = clean_text(re.sub(r"^\s*task\s*:\s*", "", task, flags=re.IGNORECASE))
        if not task:
            raise DataError("the task is empty", where=where, fix="Say what the robots should do.")
        for token in self.tokenizer.all_special_tokens:
            if token in task:
                raise DataError("the task has a special token in its text", where=where, got=token, fix="Take it out.")
        return f"{'<image>' if with_image else ''}Task: {task}\n"

    def expand(self, text: str) -> str:
        """Write each `<image>` as `num_visual_tokens` placeholders."""
        return text.replace("<image>", "<image>" * self.num_visual_tokens)

    def ngram_ids(self, texts: Sequence[str], dropout: float = 0.0, seeds: Sequence[int] | None = None) -> Any:
        """Return [B, G] ids of the hashed n-grams of each prompt, 0 = padding; None without `ngram_buckets`.

        Args:
            texts: prompts, as `task_prompt` makes them.
            dropout: share of whole words that are left out.
            seeds: one a text, of the words that are; needed with `dropout`.
        """
        if not self.ngram_buckets:
            return None
        import torch

        texts = [text.replace("<image>", "") for text in texts]
        if self.ngram_words_apart:
            texts = [text.removeprefix("Task: ") for text in texts]
        drawn = seeds if dropout and seeds is not None else [0] * len(texts)
        pairs = zip(texts, drawn, strict=True)
        how = (self.ngram_buckets, dropout)
        bags = [hashed_ngrams(text, *how, seed, self.ngram_words_apart) or [0] for text, seed in pairs]
        width = max(len(bag) for bag in bags)
        return torch.tensor([bag + [0] * (width - len(bag)) for bag in bags])

    def told(self, robots: Sequence[str]) -> str:
        """Return how a chain begins: what was picked, in the fleet's order, where the chain is told; else nothing."""
        picked = ", ".join(robot for robot in self.robots if robot in robots)
        return f"<robot> {picked}\n" if self.explain_decision and picked else ""

    def prompts(
        self,
        tasks: Sequence[str],
        images: Sequence[Any],
        *,
        reasoning: bool = False,
        picked: Sequence[Sequence[str]] | None = None,
    ) -> BatchFeature:
        """Encode tasks for inference, left-padded; with `reasoning`, ready to be continued by the language model.

        Args:
            tasks: texts.
            images: one picture or None for each task.
            reasoning: append `<reasoning_start>`.
            picked: robots of each task that its chain is told of; needed with `reasoning` and `explain_decision`.

        Returns:
            `BatchFeature`: input_ids [B, T], attention_mask [B, T], and pixel_values [N, 3, S, S] if any picture.

        Raises:
            DataError: a task is empty or too long; a chain is to be told what was picked, and `picked` is missing.
        """
        if reasoning and self.explain_decision and picked is None:
            raise DataError(
                "this model explains a choice, and none is given", got="picked=None",
                fix="Call model.generate_answers or model.select_robots, which pick first.",
            )  # fmt: skip
        starts = [f"<reasoning_start>{self.told(names)}" * reasoning for names in picked or [()] * len(tasks)]
        plain = [
            self.task_prompt(task, with_image=image is not None) for task, image in zip(tasks, images, strict=True)
        ]
        texts = [self.expand(text) + start for text, start in zip(plain, starts, strict=True)]
        batch = self.tokenizer(texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
        self.check_length(batch.input_ids.shape[1], "task")
        data = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        pixel_values = self.pixels(images)
        if pixel_values is not None:
            data["pixel_values"] = pixel_values
        if self.ngram_buckets:
            data["ngram_ids"] = self.ngram_ids(plain)
        return BatchFeature(data)

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """Encode task texts and pictures for `model(**batch)`; see `prompts`."""
        tasks = [text] if isinstance(text, str) else list(text or [])
        pictures = list(images) if isinstance(images, (list, tuple)) else [images] * max(1, len(tasks))
        return self.prompts(tasks, pictures, reasoning=bool(kwargs.get("reasoning", False)))

    def check_length(self, length: int, where: str) -> None:
        """Refuse what the language model has no positions for.

        Raises:
            DataError: longer than `max_length`.
        """
        if length > self.max_length:
            raise DataError(
                "text and image tokens exceed the language model's positions",
                where=where,
                got=f"{length} tokens",
                expected=f"at most {self.max_length}",
                fix="Shorten the text or pool the image with visual_grid.",
            )

    # ---- training texts ---------------------------------------------------------------------------------------------

    def reasoning_target(self, row: Mapping[str, Any]) -> TargetText:
        """Return task -> chain of thought, robots and plan; prompt only where the row has no chain."""
        prompt = self.task_prompt(row["task"], with_image=row["image"] is not None, where=row["id"])
        if not row["reasoning"]:
            return TargetText(prompt)
        spans = verdict_spans(row["reasoning"], self.robots)
        told = self.told(row["robots"])
        head = f"<reasoning_start>{told}"
        shifted = {robot: (start + len(head), end + len(head)) for robot, (start, end) in spans.items()}
        plan = "; ".join(f"{step['order']}. {step['robot']}: {step['subtask']}" for step in row["plan"])
        target = f"{head}{row['reasoning']}<reasoning_end><robot> {', '.join(row['robots'])}<plan> {plan}"
        return TargetText(prompt, target, shifted, len(head) if told else 0)

    def caption_target(self, row: Mapping[str, Any]) -> TargetText:
        """Return picture -> caption."""
        return TargetText("<image>Describe the scene:\n", row["caption"])

    def dialogue_targets(self, row: Mapping[str, Any], *, all_turns: bool = False) -> list[TargetText]:
        """Return one sequence a turn; the text before it is context, only the answer is learned.

        A turn that is not to be learned (`train` False) has none, unless `all_turns`.
        """
        context = "<image>" if row["image"] is not None else ""
        targets = []
        for turn in row["dialogue"]:
            context += f"Question: {turn['question']}\nAnswer:"
            if all_turns or turn.get("train", True):
                targets.append(TargetText(context, f" {turn['answer']}"))
            context += f" {turn['answer']}\n"
        return targets

    # ---- back to words ----------------------------------------------------------------------------------------------

    def parse_answer(self, token_ids: Any) -> RobotAnswer:
        """Split generated token ids into reasoning, robots and plan; parts that were not written are empty."""
        text = self.tokenizer.decode(token_ids, skip_special_tokens=False)
        for token in (self.tokenizer.eos_token, self.tokenizer.pad_token):
            text = text.split(token)[0] if token else text
        reasoning, _, rest = text.partition("<reasoning_end>")
        named, _, plan = rest.partition("<robot>")[2].partition("<plan>")
        by_name = {robot.lower(): robot for robot in self.robots}
        robots = tuple(by_name[name] for part in named.split(",") if (name := part.strip().lower()) in by_name)
        steps = tuple(
            Subtask(step["subtask"].strip(), by_name[name], int(step["order"]))
            for step in _PLAN_STEP.finditer(plan)
            if (name := step["robot"].strip().lower()) in by_name
        )
        return RobotAnswer(text, reasoning.replace("<reasoning_start>", "").strip(), robots, steps)


AutoProcessor.register(EmberVLMConfig, EmberVLMProcessor, exist_ok=True)
