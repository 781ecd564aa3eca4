"""How far do colours alone carry on the generated drone scenes, in plain and in varied conditions?

    python benchmarks/drone_shortcuts.py [--checkpoint outputs/internvl_retrieval_tiny/final]

For both, text to image over the held-out buildings of the tiny recipe, one caption a picture: chance, the ridge from
colour layout to words that evaluations set beside a model, and a reader that knows every picture's facts and counts
which of a caption's statements are true of it. The reader is what a caption allows: the scenes are answerable.

With a checkpoint also what that model finds by its vectors, and the difference to the ridge with a paired interval:
both answer the same queries, and buildings are drawn anew.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hfvla.data.boxes import relation_words
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.metrics.retrieval import RetrievalRanks, chance_recalls, first_hit_ranks, recalls
from hfvla.metrics.retrieval_baselines import fit_colour_layout, picture_features
from hfvla.worlds.drone import BUILDING, DroneOptions, draw_picture, scene_boxes
from hfvla.worlds.drone.builder import DroneImage, draw_images, write_images
from hfvla.worlds.drone.conditions import road_side
from hfvla.worlds.drone.holdout import MARKS, ROOFS, SHAPES

NOUNS = {"pool": "pool", "pond": "pond", "trees": "trees", "car park": "car park|parking lot", "field": "sports field",
         "court": "tennis court", "garden": "flower garden", "tanks": "tanks"}  # fmt: skip
GROUND_WORDS = {"grass": "grass|lawn", "sand": "sand", "pavement": "pavement|concrete", "soil": "soil|earth"}
PLACE = re.compile(r"\b(upper|middle|lower) (left|middle|right)\b")
SIDE = re.compile(r"\b(upper|lower|left|right) side\b")


def facts_of(image: DroneImage) -> set[str]:
    """Return the statements that are true of a picture."""
    building, view, boxes = image.building, image.view, scene_boxes(image.building, image.view)
    found = {building.roof, building.shape, f"ground {building.ground}", f"mark {building.mark}"}
    for surrounding in building.surroundings:
        found.add(surrounding.kind)
        if boxes[BUILDING] and boxes[surrounding.kind]:
            across, down = relation_words(boxes[BUILDING], boxes[surrounding.kind])
            found.add(f"{surrounding.kind} {down} {across.replace('centre', 'middle')}")
    side = road_side(building.road, view.angle) if view.weather else building.road
    return found | ({f"road {side}"} if side else set())


def statements(caption: str) -> set[str]:
    """Return what a caption states, in the words of `facts_of`."""
    found = set()
    for number, sentence in enumerate(caption.split(". ")):
        if number == 0:
            name = re.sub("grey stripe|round helipad|inner courtyard", lambda m: m[0].split()[1], sentence)
            found |= {word for word in (*ROOFS, *SHAPES) if re.search(rf"\b{word}\b", name)}
            found.add(f"mark {next((mark for mark in MARKS if mark in name), 'plain')}")
            continue
        kind = next((kind for kind, noun in NOUNS.items() if re.search(noun, sentence)), None)
        place, side = PLACE.search(sentence), SIDE.search(sentence)
        if kind:
            found |= {kind} | ({f"{kind} {place[0]}"} if place else set())
        elif side:
            found.add(f"road {side[1]}")
        else:
            found |= {f"ground {ground}" for ground, word in GROUND_WORDS.items() if re.search(word, sentence)}
    return found


def model_vectors(
    checkpoint: Path, images: Sequence[DroneImage], captions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors of pictures [I, D] and captions [T, D] by a trained model; pictures as its data has them."""
    from hfvla import InternVLForRetrieval, InternVLRetrievalProcessor
    from hfvla.models.internvl_retrieval.search import encode_images, encode_texts

    model = InternVLForRetrieval.from_pretrained(checkpoint).eval()
    processor = InternVLRetrievalProcessor.from_pretrained(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        write_images(images, model.config.image_size, Path(folder))
        paths = [str(Path(folder) / image.image_id) for image in images]
        seen = encode_images(model, processor, paths, batch_size=80).embed
    read = encode_texts(model, processor, list(captions), batch_size=80)
    return tuple(torch.nn.functional.normalize(one, dim=-1).numpy() for one in (seen, read))  # type: ignore[return-value]


def paired(ours: RetrievalRanks, ridge: RetrievalRanks, groups: Sequence[str], seed: int) -> dict[str, list[float]]:
    """Return [difference, low, high] of each recall, of ours less the ridge's: 95 % over buildings drawn anew."""
    arrays = {
        f"{name}_{part}": getattr(ranks, part)
        for name, ranks in (("ours", ours), ("ridge", ridge))
        for part in ("t2i", "i2t", "text_has_hit", "image_has_hit")
    }  # a picture has one caption: a row is both

    def differences(**drawn: np.ndarray) -> dict[str, float]:
        both = [
            recalls(
                RetrievalRanks(*(drawn[f"{name}_{part}"] for part in ("t2i", "i2t", "text_has_hit", "image_has_hit")))
            )
            for name in ("ours", "ridge")
        ]
        return {name: both[0][name] - both[1][name] for name in both[0]}

    intervals = bootstrap_intervals(differences, arrays, groups, seed=seed)
    return {name: [value, *intervals[name]] for name, value in differences(**arrays).items()}


def measure(
    conditions: str, train: int, test: int, size: int, seed: int, checkpoint: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Return recalls by system, and with a checkpoint the paired differences."""
    made = {
        part: draw_images(DroneOptions(buildings=count, captions=1, split=part, conditions=conditions), seed)
        for part, count in (("train", train), ("test", test))
    }
    features = {
        part: np.stack([picture_features(Image.fromarray(draw_picture(i.building, i.view, size))) for i in images])
        for part, images in made.items()
    }
    captions = {part: [image.wordings[0].caption for image in images] for part, images in made.items()}
    groups = [image.building.name for image in made["train"]]
    fitted = fit_colour_layout(features["train"], [[one] for one in captions["train"]], groups, seed)
    ids = np.unique([image.building.name for image in made["test"]], return_inverse=True)[1]
    facts, told = [facts_of(image) for image in made["test"]], [*map(statements, captions["test"])]
    words = sorted(set().union(*facts, *told))
    true, said = (np.array([[word in one for word in words] for one in many], np.float32) for many in (facts, told))
    sides = {
        "a reader of the picture's facts": (2 * true - 1, said),  # true statements less false ones
        "ridge on colour layout": (fitted.images(features["test"]), fitted.texts(captions["test"])),
    }
    if checkpoint is not None:
        sides["the model"] = model_vectors(checkpoint, made["test"], captions["test"])
    ranks = {
        name: first_hit_ranks(*(torch.from_numpy(np.asarray(one, np.float32)) for one in pair), ids, ids)
        for name, pair in sides.items()
    }
    found: dict[str, dict[str, Any]] = {name: recalls(one) for name, one in ranks.items()}
    if checkpoint is not None:
        names = [image.building.name for image in made["test"]]
        found["the model less the ridge"] = paired(ranks["the model"], ranks["ridge on colour layout"], names, seed)
    return {**found, "chance": chance_recalls(ids, ids)}


def main() -> None:
    """Print a table for each of the conditions, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1600, help="buildings")
    parser.add_argument("--test", type=int, default=250, help="buildings")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7])
    parser.add_argument("--checkpoint", type=Path, help="folder of a trained internvl_retrieval model")
    parser.add_argument("--conditions", nargs="+", choices=["plain", "varied"], default=["plain", "varied"])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/drone_shortcuts.json"))
    asked = parser.parse_args()
    result = {
        conditions: {
            str(seed): measure(conditions, asked.train, asked.test, asked.image_size, seed, asked.checkpoint)
            for seed in asked.seeds
        }
        for conditions in asked.conditions
    }
    for conditions, by_seed in result.items():
        for seed, found in by_seed.items():
            for name, scores in found.items():
                line = "  ".join(
                    f"{key} {value:.3f}"
                    if isinstance(value, float)
                    else f"{key} {value[0]:+.3f} ({value[1]:+.3f} to {value[2]:+.3f})"
                    for key, value in scores.items()
                )
                print(f"{conditions:7} seed {seed}  {name:32} {line}")
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
