"""How far do colours alone carry on the generated drone scenes, in plain and in varied conditions?

    python benchmarks/drone_shortcuts.py

For both, text to image over the held-out buildings of the tiny recipe, one caption a picture: chance, the ridge from
colour layout to words that evaluations set beside a model, and a reader that knows every picture's facts and counts
which of a caption's statements are true of it. The reader is what a caption allows: the scenes are answerable.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hfvla.data.boxes import relation_words
from hfvla.metrics.retrieval import chance_recalls, retrieval_scores
from hfvla.metrics.retrieval_baselines import fit_colour_layout, picture_features
from hfvla.worlds.drone import BUILDING, DroneOptions, draw_picture, scene_boxes
from hfvla.worlds.drone.builder import DroneImage, draw_images
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


def measure(conditions: str, train: int, test: int, size: int, seed: int) -> dict[str, dict[str, float]]:
    """Return recalls by system."""
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
    found = {
        name: retrieval_scores(*(torch.from_numpy(np.asarray(one, np.float32)) for one in pair), ids, ids)
        for name, pair in sides.items()
    }
    return {**found, "chance": chance_recalls(ids, ids)}


def main() -> None:
    """Print a table for both conditions, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1600, help="buildings")
    parser.add_argument("--test", type=int, default=250, help="buildings")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/drone_shortcuts.json"))
    asked = parser.parse_args()
    result = {
        conditions: {
            str(seed): measure(conditions, asked.train, asked.test, asked.image_size, seed) for seed in asked.seeds
        }
        for conditions in ("plain", "varied")
    }
    for conditions, by_seed in result.items():
        for seed, found in by_seed.items():
            for name, scores in found.items():
                line = "  ".join(f"{key} {value:.3f}" for key, value in scores.items())
                print(f"{conditions:7} seed {seed}  {name:32} {line}")
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
