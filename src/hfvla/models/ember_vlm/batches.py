"""From rows (tasks or conversations) to batches, and the tokenizer that a model from scratch learns on its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.data.paraphrase import paraphrase
from hfvla.data.reasoning import graft_chain
from hfvla.data.rows.epoch import AUGMENTATION_SEED, draw_seed, row_seed
from hfvla.data.rows.group_ids import SOURCE_IDS, source_ids
from hfvla.data.rows.learned_terms import learned_terms
from hfvla.errors import DataError, did_you_mean
from hfvla.family import CACHED_FEATURES, as_names
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.ember_vlm.configuration_ember_vlm import SPECIAL_TOKENS, EmberVLMConfig
from hfvla.models.ember_vlm.conversations import as_tasks, is_conversation
from hfvla.models.ember_vlm.modeling_ember_vlm import TEXT_KINDS
from hfvla.models.ember_vlm.processing_ember_vlm import EmberVLMProcessor, TargetText

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

__all__ = ["EmberVLMCollator", "build_tokenizer", "plan_batch", "plan_prompt_states", "plan_vision", "training_texts"]

_SELECTION_LOSSES = ("selection", "reasoning", "consistency")
_COUNTERFACTUAL_DRAW = 2  # unrelated to the draws of `draw_seed`


class EmberVLMCollator:
    """Builds the sequences that the wanted loss terms need; a row without what a term needs is left out of that term.

    Args:
        processor: the checkpoint's processor.
        config: the model's config.
        losses: loss terms of the stage; decides which sequences a row becomes.
        training: pad on the right (training) rather than on the left.
    """

    def __init__(
        self,
        processor: EmberVLMProcessor,
        config: EmberVLMConfig,
        losses: Sequence[str] = ("selection",),
        training: bool = True,
    ) -> None:
        self.processor, self.config, self.losses, self.training = processor, config, as_names(losses), training

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch for `EmberVLMForRobotSelection.forward`; see there for shapes.

        Rows of which none has what the wanted terms need become prompts without labels: a batch without a loss term.

        Raises:
            DataError: a sequence is too long; an unknown robot.
        """
        rows = [self._in_other_words(row) for row in as_tasks(rows)]
        sequences = [item for row in rows for item in self._sequences(row, rows)]
        sequences = sequences or [(row, "reasoning", TargetText("Describe the scene:\n")) for row in rows]
        if "prompt_states" in (rows[0].get(CACHED_FEATURES) or {}):
            batch = self._read_already([row for row, _, _ in sequences])
        else:
            batch = self._encode(sequences)
            batch.update(self._images([row for row, _, text in sequences if "<image>" in text.prompt]))
        if any(name in self.losses for name in _SELECTION_LOSSES):
            batch["robot_labels"] = torch.stack([self._robot_labels(row) for row, _, _ in sequences])
            gold = [
                kind == "reasoning" and bool(row["robots"]) and "selection" in learned_terms(row, _SELECTION_LOSSES)
                for row, kind, _ in sequences
            ]
            batch["robot_mask"] = torch.tensor(gold)
        seeds = self._seeds(sequences) if AUGMENTATION_SEED in rows[0] else None
        if self.processor.ngram_buckets:
            dropout = self.config.ngram_word_dropout if seeds else 0.0
            batch["ngram_ids"] = self.processor.ngram_ids([text.prompt for _, _, text in sequences], dropout, seeds)
        if self.config.word_dropout and seeds:
            batch["noise_seeds"] = torch.tensor(seeds)
        if "itc" in self.losses:
            batch.update(self._captions([row for row, kind, _ in sequences if kind == "caption"]))
        return batch

    def prompts(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return input_ids and attention_mask of the rows' prompts alone, a row each, and their pictures' pixels."""
        rows = [self._in_other_words({**row, CACHED_FEATURES: {}}) for row in as_tasks(rows)]
        prompts = [(row, "prompt", TargetText(self.processor.reasoning_target(row).prompt)) for row in rows]
        batch = self._encode(prompts)
        pixels = self.processor.pixels([row["image"] for row in rows])
        found = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return found if pixels is None else {**found, "pixel_values": pixels}

    @staticmethod
    def _read_already(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return what the cache keeps of the rows' prompts."""
        cached = [row[CACHED_FEATURES] for row in rows]
        return {name: torch.stack([found[name] for found in cached]) for name in cached[0]}

    def _in_other_words(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a training row whose task, and what its chain says of it, is put in other words."""
        if not self.config.task_paraphrase or AUGMENTATION_SEED not in row or not row["task"]:
            return row
        told = paraphrase(row["task"], draw_seed(row), self.config.task_paraphrase)
        return {**row, "task": told, "reasoning": row["reasoning"].replace(row["task"], told)}

    def _seeds(self, sequences: Sequence[tuple[Mapping[str, Any], str, TargetText]]) -> list[int]:
        """Return a seed for each sequence, other ones for those of the same row."""
        seen: Counter[int] = Counter()
        seeds = []
        for row, _, _ in sequences:
            seeds.append(draw_seed(row, seen[row[AUGMENTATION_SEED]]))
            seen[row[AUGMENTATION_SEED]] += 1
        return seeds

    def _images(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return pixel_values of the rows' pictures, or image_features where the rows bring them from the cache."""
        if rows and CACHED_FEATURES in rows[0]:
            return {"image_features": torch.stack([row[CACHED_FEATURES]["image_features"] for row in rows])}
        pixel_values = self.processor.pixels([row["image"] for row in rows])
        return {} if pixel_values is None else {"pixel_values": pixel_values}

    def _sequences(
        self, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
    ) -> Iterable[tuple[Mapping[str, Any], str, TargetText]]:
        losses = learned_terms(row, self.losses)
        wants_caption = "itc" in losses or "caption" in losses
        if wants_caption and row["image"] is not None and row["caption"]:
            yield row, "caption", self.processor.caption_target(row)
        if "instruct" in losses:
            for text in self.processor.dialogue_targets(row):
                yield row, "instruct", text
        if any(name in losses for name in _SELECTION_LOSSES):
            if (self.training or not row["task"]) and not row["robots"] and not row["reasoning"]:
                return  # text about words: nothing to select, nothing to argue for
            text = self._counterfactual(row, rows) or self.processor.reasoning_target(row)
            with_chain = "reasoning" in losses or "consistency" in losses
            yield row, "reasoning", text if with_chain else TargetText(text.prompt)

    def _counterfactual(self, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> TargetText | None:
        """Return a chain that keeps to this row's task and argues for the robots of another row, or None.

        The right robots follow from the task, so a chain that is always told those need not read what it is told, and
        behind a task in new words it argues for what it makes of them. What the head learns stays this row's own.
        Which other row it is depends on the batch, as negatives do.
        """
        share = self.config.counterfactual_decisions if self.training else 0.0
        if not share or AUGMENTATION_SEED not in row or not row["reasoning"]:
            return None
        draw = row_seed(int(row[AUGMENTATION_SEED]), _COUNTERFACTUAL_DRAW, 0)
        others = [one for one in rows if one["reasoning"] and set(one["robots"]) != set(row["robots"])]
        if draw / 2**63 >= share or not others:
            return None
        alike = [one for one in others if len(set(one["robots"])) == len(set(row["robots"]))] or others
        other = alike[draw % len(alike)]  # a set of the same size: of other sizes, how many are told would be enough
        chain = graft_chain(row["reasoning"], other["reasoning"])
        if chain is None:
            return None
        text = self.processor.reasoning_target(
            {**row, "reasoning": chain, "robots": other["robots"], "plan": other["plan"]}
        )
        return replace(text, verdicts=None)  # these verdicts are not the head's

    def _encode(self, sequences: Sequence[tuple[Mapping[str, Any], str, TargetText]]) -> dict[str, Tensor]:
        tokenizer = self.processor.tokenizer
        prompts = tokenizer([self.processor.expand(t.prompt) for _, _, t in sequences], add_special_tokens=False)
        targets = tokenizer([t.target for _, _, t in sequences], add_special_tokens=False, return_offsets_mapping=True)
        ids, labels, verdicts = [], [], []
        for index, (row, _, text) in enumerate(sequences):
            prompt, target = prompts.input_ids[index], targets.input_ids[index]
            target = [*target, tokenizer.eos_token_id] if text.target else []
            self.processor.check_length(len(prompt) + len(target), row["id"])
            ids.append(prompt + target)
            given = sum(end <= text.given for _, end in targets.offset_mapping[index])
            labels.append([IGNORE_INDEX] * (len(prompt) + given) + target[given:])
            verdicts.append(self._verdict_positions(text, targets.offset_mapping[index], len(prompt)))
        batch = {
            "input_ids": self._pad(ids, tokenizer.pad_token_id),
            "attention_mask": self._pad([[1] * len(item) for item in ids], 0),
        }
        if any(text.target for _, _, text in sequences):
            batch["labels"] = self._pad(labels, IGNORE_INDEX)
            batch["text_kind"] = torch.tensor([TEXT_KINDS.index(kind) for _, kind, _ in sequences])
            batch[SOURCE_IDS] = torch.tensor(source_ids(row for row, _, _ in sequences))
        if "consistency" in self.losses:
            shift = batch["input_ids"].shape[1] - torch.tensor([len(item) for item in ids])[:, None]
            positions = torch.tensor(verdicts)  # [B, R]
            batch["verdict_positions"] = (
                positions if self.training else torch.where(positions >= 0, positions + shift, positions)
            )
        return batch

    def _verdict_positions(self, text: TargetText, offsets: Sequence[tuple[int, int]], start: int) -> list[int]:
        spans = text.verdicts or {}
        positions = []
        for robot in self.config.robots:
            begin = spans[robot][0] if robot in spans else None
            found = (i for i, (low, high) in enumerate(offsets) if begin is not None and low <= begin < high)
            positions.append(next((start + i for i in found), -1))
        return positions

    def _pad(self, rows: Sequence[Sequence[int]], value: int) -> Tensor:
        width = max(len(row) for row in rows)
        padding = [[value] * (width - len(row)) for row in rows]
        pairs = zip(rows, padding, strict=True)
        return torch.tensor([[*row, *pad] if self.training else [*pad, *row] for row, pad in pairs])

    def _robot_labels(self, row: Mapping[str, Any]) -> Tensor:
        label = torch.zeros(self.config.num_robots)
        for robot in row["robots"]:
            if robot not in self.config.robots:
                hint = did_you_mean(robot, self.config.robots)
                raise DataError("robot is not in the model's fleet", where=row["id"], got=robot, fix=hint)
            label[self.config.robots.index(robot)] = 1.0
        return label

    def _captions(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        if not rows:  # said, not left out: the processes whose batches have captions wait for this one
            none = torch.zeros(0, 1, dtype=torch.long)
            return {"caption_input_ids": none, "caption_attention_mask": none}
        tokenizer = self.processor.tokenizer
        texts = [row["caption"] for row in rows]
        batch = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
        return {"caption_input_ids": batch.input_ids, "caption_attention_mask": batch.attention_mask}


def training_texts(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield the texts of the rows that a tokenizer is learned on.

    A fleet's dialogue is left out: it defines words that no task of these rows uses. As tokens of their own, they
    would never be trained on a task; split into known pieces, they are.
    """
    for row in rows:
        if is_conversation(row):
            yield from (part["text"] for turn in row["messages"] for part in turn["content"] if part["text"])
            continue
        yield row["task"]
        yield row["reasoning"]
        yield row["caption"]
        for step in row["plan"]:
            yield f"{step['order']}. {step['robot']}: {step['subtask']};"


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Learn a byte-level BPE tokenizer (GPT-2's kind), with the special tokens and a pad token of its own.

    Args:
        texts: training texts.
        vocab_size: size including special tokens; deterministic for the same texts in the same order.

    Returns:
        `PreTrainedTokenizerFast`
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", *SPECIAL_TOKENS.values(), "<pad>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The verdict words must be single tokens even where the data writes no chain of thought.
    verdicts = ["Drone: yes, it fits; Humanoid: no, it does not."] * 64
    tokenizer.train_from_iterator([*texts, *verdicts], trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        eos_token=special[0],
        pad_token="<pad>",
        additional_special_tokens=special[1:-1],
    )


# Tokens beside the image's, and labelled ones among them, of the longest sequence in a batch of 32 generated tasks.
_LENGTHS = {"caption": (25, 10), "instruct": (94, 16), "selection": (33, 0), "reasoning": (212, 150)}
_CAPTION_TOKENS, _DIALOGUES_A_SAMPLE, _NGRAMS = 14, 1.5, 64
_FIRST_TEXT_TOKEN = 20  # of tiny vocabularies too; special tokens come before


def plan_batch(
    config: PreTrainedConfig, batch_size: int, losses: Sequence[str], shares: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return a batch for `EmberVLMForRobotSelection.forward` as the collator makes it for these loss terms.

    Args:
        config: an `EmberVLMConfig`.
        batch_size: rows of data; one row may become several sequences.
        losses: loss terms of the stage.
        shares: of the rows that teach each of them; default: every row teaches all.
    """
    kinds = _sequences(batch_size, losses, shares or {})
    longest = max(_LENGTHS[kind][0] for kind in kinds)
    width = min(config.num_visual_tokens + longest, config.text_config.max_position_embeddings)
    ids = torch.full((len(kinds), width), _FIRST_TEXT_TOKEN)
    ids[:, : config.num_visual_tokens] = config.image_token_id
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # one row is shorter: a padded batch takes another attention kernel
    side = config.image_size
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.empty(len(kinds), 3, side, side, device="meta"),
    }
    if any(_LENGTHS[kind][1] for kind in kinds):
        batch["labels"] = torch.full_like(ids, IGNORE_INDEX)
        for row, kind in enumerate(kinds):
            batch["labels"][row, width - _LENGTHS[kind][1] :] = _FIRST_TEXT_TOKEN
        batch["text_kind"] = torch.tensor([TEXT_KINDS.index("reasoning" if k == "selection" else k) for k in kinds])
    if any(kind in ("selection", "reasoning") for kind in kinds):
        batch["robot_labels"] = torch.zeros(len(kinds), config.num_robots)
        batch["robot_mask"] = torch.tensor([kind in ("selection", "reasoning") for kind in kinds])
    if "consistency" in losses:
        batch["verdict_positions"] = torch.full((len(kinds), config.num_robots), width // 2)
    if config.ngram_buckets:
        batch["ngram_ids"] = torch.ones(len(kinds), _NGRAMS, dtype=torch.long)
    if "itc" in losses:
        captions = torch.full((kinds.count("caption"), _CAPTION_TOKENS), _FIRST_TEXT_TOKEN)
        batch |= {"caption_input_ids": captions, "caption_attention_mask": torch.ones_like(captions)}
    return batch


def plan_vision(model: EmberVLMForRobotSelection, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it: the tower's maps in place of the pixels."""
    pixels = batch.pop("pixel_values")
    return {**batch, "image_features": model.encode_pixels(pixels)}


def plan_prompt_states(model: EmberVLMForRobotSelection, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it: what the head reads in place of the prompts."""
    inputs = {name: batch.pop(name) for name in ("input_ids", "attention_mask", "pixel_values")}
    states = model.read_prompts(**inputs)
    return {**batch, "prompt_states": states.pooled, "prompt_pictures": states.pictures}


def _sequences(batch_size: int, losses: Sequence[str], shares: Mapping[str, float]) -> list[str]:
    """Return the kind of each sequence that the rows become."""

    def rows(*terms: str) -> int:
        share = max((shares.get(name, 1.0) for name in terms if name in losses), default=0.0)
        return max(1, round(share * batch_size)) if share else 0

    kinds = ["caption"] * rows("itc", "caption")
    if "instruct" in losses:
        kinds += ["instruct"] * max(1, round(_DIALOGUES_A_SAMPLE * rows("instruct")))
    written = rows("reasoning", "consistency")
    kinds += ["reasoning"] * written
    return kinds + ["selection"] * max(0, rows("selection") - written)
