"""A tiny language model that packs, its collator, and rows of two sources, for tests of packing in the trainer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from transformers.utils import ModelOutput

from hfvla.data.packing import pack_batch, unpacked
from hfvla.data.rows.group_ids import SOURCE_IDS, source_ids
from hfvla.family import ParameterGroup
from hfvla.losses.text import sums_by_row
from hfvla.recipe import Stage
from hfvla.training.trainer.trainer import StagedTrainer

GROUPS = {"all": ParameterGroup(("*",), whole_model=True)}


@dataclass
class WordsOutput(ModelOutput):
    loss: torch.Tensor | None = None
    loss_terms: dict | None = None
    row_losses: dict | None = None


class Words(LlamaForCausalLM):
    """Term "sft": cross-entropy of the labelled tokens, a mean over them."""

    def forward(self, input_ids, labels, position_ids, sequence_ids, source_ids=None, **kwargs):
        logits = super().forward(input_ids, position_ids=position_ids, use_cache=False).logits
        learned = labels[:, 1:] != -100
        losses = F.cross_entropy(logits[:, :-1][learned], labels[:, 1:][learned], reduction="none")
        rows = {"sft": sums_by_row(losses, sequence_ids[:, 1:][learned], len(source_ids))}
        loss = losses.mean()
        return WordsOutput(loss=loss, loss_terms={"sft": loss}, row_losses=rows)

    def term_counts(self, batch):
        return {"sft": (batch["labels"][:, 1:] != -100).sum()}


class WordsCollator:
    """Rows of token ids to batches, packed where the rows are."""

    def token_lengths(self, rows):
        return [len(row["ids"]) for row in rows]

    def __call__(self, rows):
        packs = unpacked(rows) or [[row] for row in rows]
        samples = [
            [{"input_ids": torch.tensor([r["ids"]]), "labels": torch.tensor([r["ids"]])} for r in p] for p in packs
        ]
        batch = pack_batch(samples, 0)
        return {**batch, SOURCE_IDS: torch.tensor(source_ids(row for pack in packs for row in pack))}


def build_words() -> Words:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    return Words(config)


def build_rows(count: int = 40) -> Dataset:
    generator = torch.Generator().manual_seed(2)
    sizes = torch.randint(2, 9, (count,), generator=generator).tolist()
    ids = [torch.randint(1, 32, (size,), generator=generator).tolist() for size in sizes]
    return Dataset.from_dict({"ids": ids, "source": ["odd" if number % 2 else "even" for number in range(count)]})


def build_trainer(folder, rows, stage: dict | None = None, model: Words | None = None, **args) -> StagedTrainer:
    settings = {
        "per_device_train_batch_size": 2, "num_train_epochs": 2, "logging_steps": 1, "save_strategy": "steps",
        "save_steps": 3, "learning_rate": 1e-2, "use_cpu": True, "remove_unused_columns": False, "report_to": "none",
        "disable_tqdm": True,
    }  # fmt: skip
    arguments = TrainingArguments(output_dir=str(folder), **{**settings, **args})
    whole = Stage.model_validate({"name": "words", "train": ["all"], "losses": {"sft": 1.0}, **(stage or {})})
    return StagedTrainer(
        model=model or build_words(), args=arguments, stage=whole, groups=GROUPS, from_recipe=True,
        data_collator=WordsCollator(), train_dataset=rows,
    )  # fmt: skip
