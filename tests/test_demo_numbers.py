"""README's picture of the demo and the numbers beside it come from one run."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_demo

    return make_demo


def test_the_readmes_numbers_are_those_of_the_run_in_its_picture(demo):
    facts = demo.stamped(demo.PICTURE)
    assert facts, "the picture says no run: python docs/make_demo.py outputs/demo"
    readme = demo.README.read_text(encoding="utf-8")
    assert "docs/assets/report.png" in readme and re.fullmatch("[0-9a-f]{40}", facts["commit"])
    assert demo.written(readme) == demo.paragraph(facts), "run: python docs/make_demo.py outputs/demo"


def test_a_picture_or_a_number_of_another_run_is_noticed(demo, tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "new.png")
    assert demo.stamped(tmp_path / "new.png") is None
    scores = {"top1_in_set": 0.9, "exact_match": 0.8, "ece": 0.0123}
    parts = {f"scene_only/{name}": {"top1_in_set": 0.5} for name in ("with_image", "blank_image", "prior")}
    chains = {f"reasoning/{name}": 1.0 for name in ("n", "four_steps", "consistency", "contradiction_free")}
    metrics = {**scores, **chains, "baselines": {"tfidf_logreg": scores}, "ablations": parts}
    told = {"commit": "a" * 40, "seed": 3, "stages": [{"seconds": 89.0}] * 2, "hardware": {"cores": 2}}
    for seed, exact in ((3, 0.8), (4, 0.9)):
        run = tmp_path / str(seed)
        run.mkdir()
        (run / "metrics.json").write_text(json.dumps({**metrics, "exact_match": exact}))
        (run / "run.json").write_text(json.dumps({**told, "seed": seed}))
    facts = demo.facts_of(tmp_path / "3")
    demo.stamp(tmp_path / "new.png", facts)
    assert demo.stamped(tmp_path / "new.png") == facts and facts["ece"] == 0.012 and facts["minutes"] == 3
    with Image.open(tmp_path / "new.png") as kept:
        assert kept.getpixel((2, 2)) == (255, 0, 0)
    other = demo.paragraph({**facts, "exact_match": 0.801})
    assert other != demo.paragraph(facts) and "exact 0.801" in other and "`aaaaaaa`" in other
    both = demo.facts_of(tmp_path / "3", tmp_path / "4")
    assert (both["exact_match"], both["spread/exact_match"]) == (0.85, 0.071)
    words = demo.paragraph(both)
    assert "seeds 3, 4" in words and "exact 0.850 ± 0.071" in words and "one seed" not in words
    with pytest.raises(ValueError, match="different seeds"):
        demo.facts_of(tmp_path / "3", tmp_path / "3")
    with pytest.raises(ValueError, match="no lines between"):
        demo.written("# hfvla\n")
