"""Real excerpts as `make real` lays them out for the curriculum, and a run on them: drawn pictures, tiny parts."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from tests.recipes.real_parts import write_language, write_parts, write_stamps

from hfvla.data.sources.vision_language.build import build_vision_language
from hfvla.data.sources.vision_language.options import VisionLanguageOptions
from hfvla.recipe import load_recipe
from hfvla.training.run.run import run_recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "ember_vlm" / "curriculum_real.yaml"
PICTURES, SIDE = 8, 96
NAMES = ("cat", "dog", "apple", "car")
pytestmark = pytest.mark.usefixtures("scripts")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eight pictures with two boxes each, one without its file; a question or two of the other sets."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("coco/annotations", "coco/val2017", "aokvqa", "textvqa"):
        (folder / name).mkdir(parents=True)
    images, instances, captions = [], [], []
    for number in range(PICTURES + 1):
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "width": SIDE, "height": SIDE})
        picture = Image.new("RGB", (SIDE, SIDE), (20 * number, 60, 200 - 20 * number))
        for place in range(2):
            box = [8 + 40 * place, 10 + 4 * number, 30, 30]
            ImageDraw.Draw(picture).rectangle((box[0], box[1], box[0] + 30, box[1] + 30), fill=(250, 250, 40 * place))
            category = (number + place) % len(NAMES) + 1
            instances.append({"id": len(instances), "image_id": number, "category_id": category, "bbox": box,
                              "iscrowd": 0})  # fmt: skip
            captions.append({"id": len(captions), "image_id": number, "caption": f"A {NAMES[category - 1]} {number}."})
        if number < PICTURES:
            picture.save(folder / "coco" / "val2017" / images[-1]["file_name"])
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(NAMES)]
    for kind, rows in (("captions", captions), ("instances", instances)):
        content = {"images": images, "annotations": rows, "categories": categories}
        (folder / "coco" / "annotations" / f"{kind}_val2017.json").write_text(json.dumps(content))
    asked = [{"question": f"What is {number}?", "direct_answers": ["four"] * 9 + ["five"],
              "difficult_direct_answer": number == 0} for number in range(5)]  # fmt: skip
    (folder / "aokvqa" / "aokvqa_v1p0_val.json").write_text(json.dumps(asked))
    for part in ("train", "val"):
        read = [{"question": f"what brand is {part}?", "answers": ["nokia"] * 10}]
        (folder / "textvqa" / f"TextVQA_0.5.1_{part}.json").write_text(json.dumps({"data": read}))
    return folder


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    folder = write_stamps(tmp_path_factory.mktemp("data") / "stamps")
    lines = (folder / "train.jsonl").read_text().splitlines()
    named = [{**json.loads(line), "caption": f"A {NAMES[number % 4]}."} for number, line in enumerate(lines)]
    (folder / "train.jsonl").write_text("\n".join(json.dumps(one) for one in named))
    return folder


@pytest.fixture(scope="module")
def laid_out(source, stamps, tmp_path_factory):
    import excerpts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(excerpts, "SCENES", 6)
        return excerpts.build_excerpts(source, stamps, tmp_path_factory.mktemp("data") / "excerpts", 7)


def read(path, **options):
    return build_vision_language(VisionLanguageOptions(path=str(path), **options), seed=0).dataset


def test_no_picture_is_on_both_sides_and_the_reader_takes_every_file(laid_out):
    groups = {}
    for part in ("train", "val"):
        pictures = {"images": str(laid_out / "pictures"), "split": part}
        said = read(laid_out / "annotations" / f"captions_{part}2017.json", **pictures)
        boxes = read(laid_out / "annotations" / f"instances_{part}2017.json", **pictures)
        asked = read(laid_out / f"asked_{part}.jsonl", split=part)
        groups[part] = {row["group"] for rows in (said, boxes, asked) for row in rows}
        assert len(said) == len(boxes) == PICTURES and len(groups[part]) == PICTURES // 2
        words = read(laid_out / f"words_{part}.jsonl", split=part)
        assert len(words) == 3 and not any(row["images"] for row in words)  # without the one that is difficult
        assert {tuple(row["references"])[:1] for row in words} == {("four",), ("nokia",)}
    assert not groups["train"] & groups["val"]


def test_what_is_missing_is_named_before_anything_is_made(source, stamps, tmp_path):
    import excerpts

    with pytest.raises(FileNotFoundError, match="has no coco/.*, coco/val2017, aokvqa/.*, textvqa/"):
        excerpts.build_excerpts(tmp_path, stamps, tmp_path / "made", 7)
    shutil.copytree(source, tmp_path / "copy")
    for number in range(1, PICTURES):
        (tmp_path / "copy" / "coco" / "val2017" / f"{number:012d}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 9 pictures listed; need two"):
        excerpts.build_excerpts(tmp_path / "copy", stamps, tmp_path / "made", 7)
    assert not (tmp_path / "made").exists()


def test_half_of_the_questions_are_for_what_is_not_there(laid_out):
    instances = json.loads((laid_out / "annotations" / "instances_val2017.json").read_text())
    import excerpts

    shown = excerpts.shown(instances)
    records = [json.loads(line) for line in (laid_out / "asked_val.jsonl").read_text().splitlines()]
    for one in records:
        file, _, name = one["id"].partition("/")
        assert one["answer"] == ("yes" if name in shown[file] else "no")
        assert one["question"].startswith(f"Is there {'an' if name == 'apple' else 'a'} {name} in")
    assert sum(one["answer"] == "yes" for one in records) == len(records) / 2 > 0


def test_a_pasted_stamp_is_where_its_box_says(laid_out, stamps):
    scenes = json.loads((laid_out / "scenes" / "instances_train.json").read_text())
    colours = {}
    for line in (stamps / "train.jsonl").read_text().splitlines():
        record = json.loads(line)
        with Image.open(stamps / record["image"]) as stamp:
            colours.setdefault(record["caption"][2:-1], []).append(stamp.getpixel((3, 3)))
    names = {one["id"]: one["name"] for one in scenes["categories"]}
    files = {one["id"]: one["file_name"] for one in scenes["images"]}
    last = {one["image_id"]: one for one in scenes["annotations"]}  # nothing is pasted over the last
    assert len(last) == 6
    for one in last.values():
        left, top, width, height = one["bbox"]
        with Image.open(laid_out / "scenes" / files[one["image_id"]]) as scene:
            seen = scene.convert("RGB").getpixel((left + width // 2, top + height // 2))
        assert (
            min(max(abs(a - b) for a, b in zip(seen, own, strict=True)) for own in colours[names[one["category_id"]]])
            < 12
        )
    rows = read(laid_out / "scenes" / "instances_train.json", images=str(laid_out / "scenes"))
    assert len(rows) == len({(one["image_id"], one["category_id"]) for one in scenes["annotations"]})


def test_a_caption_that_is_no_name_is_left_out():
    import excerpts

    assert excerpts.stamp_name("A frog.") == "frog"
    assert excerpts.stamp_name("An African elephant.") == "african elephant"
    for caption in ("Three.", "The Earth. Our planet!", "A US 5 cent piece ($.05) called a nickel."):
        assert not excerpts.stamp_name(caption)


def test_overrides_move_every_path_of_the_recipe():
    import curriculum

    folders = {"outputs/real/data/excerpts-7": "/x/excerpts-7", "outputs/real": "/y"}
    recipe = load_recipe(RECIPE, curriculum.moved(RECIPE, folders))
    told = json.dumps(recipe.model_dump(mode="json", exclude={"output_dir"}))
    assert "outputs/real" not in told and "/x/excerpts-7/scenes/asked_train.jsonl" in told
    assert "local-dir:/y/parts/efficientnet-lite0" in told and "/y/data/stamps/train.jsonl" in told


@pytest.mark.slow
def test_the_stages_are_scored_on_the_half_that_none_saw(laid_out, stamps, tmp_path):
    import curriculum

    parts = write_parts(tmp_path / "parts")
    write_language(parts / "smollm2-first", layers=4)
    folders = {"outputs/real/data/excerpts-7": laid_out, "outputs/real/data/stamps": stamps}
    folders["outputs/real/parts"] = parts
    few = [f"stages.{stage}.args.max_steps=2" for stage in ("alignment", "instruct")]
    few += ["model.config.image_size=64", "model.config.visual_grid=[2,2]", "evaluation.bootstrap_samples=20"]
    run_recipe(load_recipe(RECIPE, [*curriculum.moved(RECIPE, folders), *few]), output_dir=tmp_path / "run")
    found = curriculum.of_run(tmp_path / "run")
    titles = {title for _, _, title in curriculum.SCORES}
    assert all(set(found[row]) == titles for row in ("before training", "after alignment", "after instruct"))
    assert found["bigram"]["caption loss"] > 0 and 0 <= found["most frequent"]["boxes at IoU 0.5"] <= 1
    assert found["question only"]["objects, yes or no"] >= 0


def test_make_real_divides_anew_for_each_seed_and_writes_a_table(source, stamps, tmp_path, monkeypatch):
    import curriculum
    import excerpts
    import run
    from rich.console import Console

    asked = []

    def train(work, family, name, seed, overrides, recipe_name):
        asked.append((family, name, seed, recipe_name))
        assert f"data.eval.questions.path={work.data}/excerpts-{seed}/asked_val.jsonl" in overrides
        return tmp_path / str(seed)

    monkeypatch.setattr(excerpts, "SCENES", 2)
    monkeypatch.setattr(run.Work, "train", train)
    monkeypatch.setattr(run.parts, "build", lambda name, folder: folder / name)
    monkeypatch.setattr(run.parts, "shorten", lambda source, target, layers: target)
    monkeypatch.setattr(run.data, "build", lambda name, folder: stamps)
    monkeypatch.setattr(curriculum, "of_run", lambda folder: {"bigram": {"caption loss": float(folder.name)}})
    (tmp_path / "ember_vlm").mkdir()
    work = run.Work(tmp_path, [7, 8], Console(), excerpts=source)
    run.run_curriculum(work)
    assert asked == [("ember_vlm", "curriculum", seed, "curriculum_real") for seed in (7, 8)]
    table = (tmp_path / "ember_vlm" / "curriculum.md").read_text()
    assert "| bigram | 7.500 ± 0.707 |" in table
    halves = [{one["file_name"] for one in excerpts.halves(source / "coco", seed)["val"]} for seed in (7, 8)]
    assert halves[0] != halves[1]
    with pytest.raises(OSError, match="--excerpts FOLDER"):
        run.run_curriculum(run.Work(tmp_path, [7], Console()))
