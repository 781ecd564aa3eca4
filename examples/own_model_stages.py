"""Train a model of your own in two stages: no family, no recipe file, nothing of the library touched.

A ViT and a text encoder, both small and random, learn which of nine sentences fits a picture. Stage 1 trains two
projections on frozen towers; stage 2 trains on, and the ViT and the text's last layer join after its first epoch.

Run:  python examples/own_model_stages.py
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, TrainingArguments

from hfvla.family import ParameterGroup
from hfvla.recipe import Phase, Stage
from hfvla.training.trainer.trainer import StagedTrainer

COLOURS, PLACES = torch.eye(3), ("left", "middle", "right")
SENTENCES = torch.tensor([[1, 2 + colour, 5 + place] for colour in range(3) for place in range(3)])  # "a red one left"
GROUPS = {
    "vision": ParameterGroup(("vision.*",), layers="vision.layers"),
    "text": ParameterGroup(("text.*",), layers="text.encoder.layer"),
    "projections": ParameterGroup(("to_joint.*", "to_colour.*")),
}


class PictureText(PreTrainedModel):
    """Scores a picture against the nine sentences; the terms are "match" and "colour"."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        self.vision = AutoModel.from_config(AutoConfig.for_model("vit", image_size=24, patch_size=8, **size))
        self.text = AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=8, **size))
        self.to_joint = nn.ModuleDict({"vision": nn.Linear(32, 16), "text": nn.Linear(32, 16)})
        self.to_colour = nn.Linear(16, 3)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict:
        """Return loss terms and logits [B, 9] for pictures [B, 3, 24, 24] and sentence numbers [B]."""
        picture = self.to_joint["vision"](self.vision(pixel_values).last_hidden_state.mean(1))  # [B, 16]
        words = self.text(SENTENCES.to(labels.device)).last_hidden_state.mean(1)  # [9, 32]
        logits = picture @ self.to_joint["text"](words).T  # [B, 9]
        colour = F.cross_entropy(self.to_colour(picture), labels // 3)
        terms = {"match": F.cross_entropy(logits, labels), "colour": colour}
        return {"loss": sum(terms.values()), "loss_terms": terms, "logits": logits}


def make_rows(count: int, seed: int) -> list[dict]:
    """Draw noisy pictures of one coloured square; the label is the number of the sentence that is true of it."""
    draw = torch.Generator().manual_seed(seed)
    pictures = 0.3 * torch.randn(count, 3, 24, 24, generator=draw)
    labels = torch.randint(9, (count,), generator=draw)
    for picture, label in zip(pictures, labels.tolist(), strict=True):
        picture[:, 8:16, 8 * (label % 3) : 8 * (label % 3) + 8] += COLOURS[label // 3][:, None, None]
    return [{"pixel_values": x, "labels": y} for x, y in zip(pictures, labels, strict=True)]


def main() -> None:
    """Train both stages and print what each one trained and reached on pictures that it never saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="outputs/own_model")
    output = parser.parse_args().output
    torch.manual_seed(0)
    model, rows, unseen = PictureText(PreTrainedConfig()), make_rows(1024, seed=1), make_rows(256, seed=2)
    align = Stage(name="align", train=["projections"], losses={"match": 1.0, "colour": 0.5})
    joining = Phase(epoch=1, add=["vision", "text.last(1)"], learning_rates={"vision": 2e-3})
    tune = Stage(name="tune", train=["projections"], losses={"match": 1.0}, phases=[joining])
    for stage, epochs in ((align, 2), (tune, 5)):
        settings = {"num_train_epochs": epochs, "learning_rate": 5e-3, "per_device_train_batch_size": 32, "seed": 0}
        quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"}
        args = TrainingArguments(output_dir=f"{output}/{stage.name}", **settings, **quiet)
        trainer = StagedTrainer(model, args, stage=stage, groups=GROUPS, train_dataset=rows, eval_dataset=unseen)
        shares = [f"{row.share:.0%}" for row in trainer.trainable_table() if row.group == "total"]
        trainer.train()
        found = trainer.predict(unseen)
        correct = (found.predictions.argmax(-1) == found.label_ids).mean()
        print(f"{stage.name}: {' then '.join(shares)} of the weights train; {correct:.0%} of unseen pictures right")
    model.save_pretrained(f"{output}/final")


if __name__ == "__main__":
    main()
