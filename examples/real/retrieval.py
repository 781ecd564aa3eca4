"""Retrieval on captioned stamps: what two pretrained networks reach untrained and by a ridge; other languages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from hfvla.data.pictures import load_picture
from hfvla.data.text import task_key
from hfvla.metrics.retrieval import chance_recalls, first_hit_ranks, recalls, retrieval_scores

RECALLS = ("t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10", "mean_recall")
_STRENGTHS = (1.0, 10.0, 100.0, 1000.0)


@dataclass
class Shown:
    """Records of a part of the stamps, and what the frozen networks make of them.

    Attributes:
        records: of the file.
        features: [N, C] mean cell of the tower's last map.
        logits: [N, 1000] of the tower's own classifier.
        texts: [N, W] unit vectors of the English captions.
    """

    records: list[dict[str, Any]]
    features: Tensor
    logits: Tensor
    texts: Tensor

    @property
    def groups(self) -> list[str]:
        """N captions by letters: pictures with one caption are each other's hits."""
        return [task_key(record["caption"]) for record in self.records]


class Parts:
    """The two pretrained networks, as their folders load.

    Args:
        parts: folder that `parts.py` built.
    """

    def __init__(self, parts: Path) -> None:
        import timm
        from transformers import AutoModel, AutoTokenizer

        self.tower = timm.create_model(f"local-dir:{parts / 'efficientnet-lite0'}", pretrained=True).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(parts / "minilm")
        self.encoder = AutoModel.from_pretrained(parts / "minilm").eval()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [N, W] by mean pooling, as MiniLM was trained."""
        found = []
        for start in range(0, len(texts), 64):
            batch = self.tokenizer(list(texts[start : start + 64]), padding=True, truncation=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            found.append((self.encoder(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
        return normalize(torch.cat(found), dim=-1)

    @torch.inference_mode()
    def show(self, file: Path) -> Shown:
        """Read a part of the stamps and run both networks on it."""
        from timm.data import create_transform, resolve_model_data_config

        known = resolve_model_data_config(self.tower)
        change = create_transform(**known | {"crop_pct": 1.0, "crop_mode": "squash"}, is_training=False)
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        features, logits = [], []
        for start in range(0, len(records), 16):
            part = records[start : start + 16]
            pixels = torch.stack([change(load_picture(file.parent / one["image"], one["id"])) for one in part])
            maps = self.tower.forward_features(pixels)
            features.append(maps.mean((2, 3)))
            logits.append(self.tower.forward_head(maps))
        return Shown(records, torch.cat(features), torch.cat(logits), self.texts([r["caption"] for r in records]))


def class_names(parts: Parts, test: Shown) -> Tensor:
    """Return [N, W] picture vectors without training: vectors of the class names, weighed by the classifier."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    names = parts.texts([info.index_to_description(index, detailed=False) for index in range(test.logits.shape[1])])
    return normalize(test.logits.softmax(1) @ names, dim=-1)


def fit_ridge(features: Tensor, texts: Tensor, groups: Sequence[str], seed: int = 0) -> tuple[Any, float]:
    """Fit tower features to caption vectors; the strength is chosen by mean recall on a fifth of the captions.

    Returns:
        `tuple`: function from features [N, C] and texts [N, W] to both as unit vectors, and the strength.
    """
    keys = np.asarray(groups)
    different = np.random.default_rng(seed).permutation(np.unique(keys))
    held = torch.from_numpy(np.isin(keys, different[: len(different) // 5]))
    scores = {}
    for strength in _STRENGTHS:
        both = _ridge(features[~held], texts[~held], strength)(features[held], texts[held])
        scores[strength] = retrieval_scores(*both, keys[held], keys[held])["mean_recall"]
    best = max(scores, key=lambda strength: scores[strength])
    return _ridge(features, texts, best), best


def _ridge(features: Tensor, texts: Tensor, strength: float) -> Any:
    mean, common = features.mean(0), texts.mean(0)
    centred = (features - mean).double()
    gram = centred.T @ centred + strength * torch.eye(centred.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, centred.T @ (texts - common).double()).float()

    def both(pictures: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
        return normalize((pictures - mean) @ weights, dim=-1), normalize(captions - common, dim=-1)

    return both


def baselines(parts: Parts, train: Shown, tests: Mapping[str, Shown]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the recalls by set and baseline."""
    ridge, strength = fit_ridge(train.features, train.texts, train.groups)
    found = {}
    for name, test in tests.items():
        groups = test.groups
        found[name] = {
            "chance": chance_recalls(groups, groups),
            "class names, untrained": retrieval_scores(class_names(parts, test), test.texts, groups, groups),
            f"ridge on the tower ({strength:g})": retrieval_scores(*ridge(test.features, test.texts), groups, groups),
        }
    return found


def languages(checkpoint: Path, file: Path, fewest: int = 60) -> dict[str, dict[str, float]]:
    """Return the recalls of captions in each language that a trained model never read; English captions alone trained.

    Every language is asked against the pictures that have a caption in it; "n" is their number, and "t2i_r10 chance"
    what a random order would find. Languages of fewer than `fewest` captions are left out.
    """
    from hfvla import InternVLForRetrieval, InternVLRetrievalProcessor
    from hfvla.models.internvl_retrieval.search import encode_images, encode_texts, unit

    model = InternVLForRetrieval.from_pretrained(checkpoint).eval()
    processor = InternVLRetrievalProcessor.from_pretrained(checkpoint)
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    pictures = unit(encode_images(model, processor, [str(file.parent / record["image"]) for record in records]).embed)
    texts = {"en": {index: record["caption"] for index, record in enumerate(records)}}
    for index, record in enumerate(records):
        for language, text in record["languages"].items():
            texts.setdefault(language, {})[index] = text
    found = {}
    for language, told in sorted(texts.items(), key=lambda entry: (entry[0] != "en", entry[0] != "vi", entry[0])):
        if len(told) < fewest:
            continue
        numbers = list(told)
        groups = [task_key(records[index]["caption"]) for index in numbers]
        asked = unit(encode_texts(model, processor, list(told.values())))
        ranks = first_hit_ranks(pictures[numbers], asked, groups, groups)
        chance = chance_recalls(groups, groups)["t2i_r10"]
        found[language] = {"n": float(len(numbers)), **recalls(ranks), "t2i_r10 chance": chance}
    return found
