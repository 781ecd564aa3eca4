"""A family small enough to follow by hand, with two cuts: pooled vision, and the whole frozen language model, whose
token sequences differ in length. Pictures are rows of numbers; text is a list of words."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from hfvla.cache import FeatureCache
from hfvla.data.rows.epoch import AUGMENTATION_SEED
from hfvla.family import FamilySpec, FeatureCut, ParameterGroup
from hfvla.recipe import CacheRecipe

MODULE = "toy_cuts_of_the_cache_tests"
WORDS = ["go", "stop", "left", "right", "up"]


class Part:
    """Part of a processor that is saved to a folder, as an image processor or a tokenizer."""

    def __init__(self, **settings):
        self.settings = settings

    def save_pretrained(self, folder):
        content = {**self.settings, "processor_class": "Toy", "transformers_version": "1"}
        (Path(folder) / "part.json").write_text(json.dumps(content))


class Toy(nn.Module):
    def __init__(self, seed=0, **config):
        super().__init__()
        torch.manual_seed(seed)
        self.config = SimpleNamespace(**{"width": 3, "dropout": 0.1, "vision": {"depth": 1}, **config})
        self.vision = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.vision[1].running_mean.fill_(0.25)
        self.language = nn.Embedding(len(WORDS), 3)
        self.head = nn.Linear(3, 1)
        self.calls = []  # rows of each encode


def processor(size=4, crop="centre", template="please {}"):
    return SimpleNamespace(image_processor=Part(size=size, crop=crop), template=template, fleet=["drone"])


def rows(count=10, empty=(), texts=None):
    """Return rows; every third picture repeats the one before, and those in `empty` have none."""
    draw = np.random.default_rng(5)
    pictures = [draw.normal(size=4).tolist() for _ in range(count)]
    pictures = [pictures[index - 1] if index % 3 == 2 else picture for index, picture in enumerate(pictures)]
    return [
        {
            "id": str(index),
            "picture": None if index in empty else picture,
            "words": " ".join(WORDS[: 1 + index % len(WORDS)]) if texts is None else texts[index],
        }
        for index, picture in enumerate(pictures)
    ]


def pictures(context, chosen):
    values = torch.tensor([row["picture"] for row in chosen])
    noise = [
        np.random.default_rng(row[AUGMENTATION_SEED]).normal(size=4) if AUGMENTATION_SEED in row else np.zeros(4)
        for row in chosen
    ]
    return {"pixel_values": values + torch.tensor(np.stack(noise), dtype=torch.float32)}


def pool(model, batch):
    model.calls.append(len(batch["pixel_values"]))
    return [{"image_features": vector} for vector in model.vision(batch["pixel_values"])]


def prompt(context, row):
    return context.processor.template.format(row["words"])


def sentences(context, chosen):
    ids = [torch.tensor([WORDS.index(word) for word in row["words"].split()]) for row in chosen]
    lengths = torch.tensor([len(item) for item in ids])
    return {
        **pictures(context, chosen),
        "input_ids": nn.utils.rnn.pad_sequence(ids, batch_first=True),
        "mask": torch.arange(int(lengths.max())) < lengths[:, None],
    }


def read(model, batch):
    """Return the hidden states of each sequence without its padding, and the valid length."""
    model.calls.append(len(batch["input_ids"]))
    hidden = model.language(batch["input_ids"]) + model.vision(batch["pixel_values"])[:, None]
    return [
        {"hidden_states": states[valid], "token_ids": ids[valid]}
        for states, valid, ids in zip(hidden, batch["mask"], batch["input_ids"], strict=True)
    ]


def augments(context):
    return context.processor.image_processor.settings.get("crop") == "random"


CUTS = {
    "language": FeatureCut(
        groups=("vision", "language"),
        prepare=f"{MODULE}:sentences",
        encode=f"{MODULE}:read",
        fields=("picture", "words"),
        required=("picture",),
        replaces=("pixel_values", "input_ids"),
        provides=("hidden_states", "hidden_mask"),
        config=("width", "vision"),
        prompt=f"{MODULE}:prompt",
        processor=("image_processor", "template"),
        uses_losses=True,
    ),
    "vision": FeatureCut(
        groups=("vision",),
        prepare=f"{MODULE}:pictures",
        encode=f"{MODULE}:pool",
        fields=("picture",),
        required=("picture",),
        replaces=("pixel_values",),
        provides=("image_features",),
        config=("width", "vision"),
        processor=("image_processor",),
        augments=f"{MODULE}:augments",
    ),
}
UNUSED = dict.fromkeys(("config", "model", "processor", "collator"), "Nothing")
SPEC = FamilySpec(
    name="toy_family",
    summary="for tests",
    groups={
        "vision": ParameterGroup(("vision.*",)),
        "language": ParameterGroup(("language.*",)),
        "head": ParameterGroup(("head.*",)),
    },
    losses={"fit": "", "other": ""},
    sources={},
    metrics=(),
    package="nowhere",
    feature_cuts=CUTS,
    **UNUSED,
)


class Alone:
    """What accelerate's PartialState is to one process."""

    num_processes, process_index, is_main_process, device = 1, 0, True, "cpu"

    def wait_for_everyone(self):
        pass


def cache(folder, model=None, *, cut="vision", dtype="float32", views=1, state=None, of=None, **options):
    """Build a `FeatureCache` of the toy; `of` is the processor."""
    settings = CacheRecipe(dtype=dtype, views=views)
    chosen = {"batch_size": 2, "losses": ("fit",), **options}
    return FeatureCache(SPEC, cut, model or Toy(), of or processor(), settings, folder, state or Alone(), **chosen)
