"""README's picture of the demo and the numbers beside it, from one run: `make demo`, then `python docs/make_demo.py`.

The picture of the report carries the run's commit, seed and scores in its own file, and the paragraph in README is
written from them; `tests/test_demo_numbers.py` holds the two against each other. Needs Playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "assets" / "report.png"
README = ROOT / "README.md"
KEY = "hfvla-run"
START, END = "<!-- demo: start (python docs/make_demo.py) -->\n", "<!-- demo: end -->\n"
_SIZE = {"width": 1200, "height": 1500}
_SCENE = ("with_image", "blank_image", "prior")
_CHAINS = ("four_steps", "consistency", "contradiction_free")


def facts_of(run: Path) -> dict[str, Any]:
    """Return what README says of a run: its commit, seed and scores to three digits.

    Args:
        run: output folder of `make demo`.
    """
    told, metrics = (json.loads((run / name).read_text(encoding="utf-8")) for name in ("run.json", "metrics.json"))
    words = metrics["baselines"]["tfidf_logreg"]
    scores = {name: metrics[name] for name in ("top1_in_set", "exact_match", "ece")}
    scores |= {f"words/{name}": words[name] for name in ("top1_in_set", "exact_match")}
    scores |= {f"scene_only/{name}": metrics["ablations"][f"scene_only/{name}"]["top1_in_set"] for name in _SCENE}
    scores |= {f"reasoning/{name}": metrics[f"reasoning/{name}"] for name in _CHAINS}
    facts = {"commit": told["commit"], "seed": told["seed"], "chains": int(metrics["reasoning/n"])}
    facts["minutes"] = round(sum(stage["seconds"] for stage in told["stages"]) / 60)
    facts["cores"] = told["hardware"]["cores"]
    return {**facts, **{name: round(one, 3) for name, one in scores.items()}}


def paragraph(facts: dict[str, Any]) -> str:
    """Return README's lines on the demo."""
    number = {name: f"{value:.3f}" for name, value in facts.items() if isinstance(value, float)}
    return (
        f"The demo (`make demo`, one seed, {facts['seed']}) trains for {facts['minutes']} minutes on {facts['cores']} "
        f"cores and reaches top-1 {number['top1_in_set']},\nexact {number['exact_match']}, ECE {number['ece']}, "
        f"where TF-IDF + logistic regression has {number['words/top1_in_set']} and {number['words/exact_match']}; and "
        f"{number['scene_only/with_image']} on the tasks\nthat need the picture (blank "
        f"{number['scene_only/blank_image']}, prior {number['scene_only/prior']}). The picture above is this run's "
        f"report, at commit `{facts['commit'][:7]}`.\nIt writes reasons in sentences: of {facts['chains']} held-out "
        f"tasks {number['reasoning/four_steps']} have all four steps, {number['reasoning/consistency']} decide for "
        f"what was\npicked (they are told), {number['reasoning/contradiction_free']} do not contradict themselves.\n"
    )


def stamp(picture: Path, facts: dict[str, Any]) -> None:
    """Write the facts into a PNG's own text; its pixels stay."""
    info = PngInfo()
    info.add_text(KEY, json.dumps(facts))
    with Image.open(picture) as opened:
        opened.load()
        opened.save(picture, pnginfo=info, optimize=True)


def stamped(picture: Path) -> dict[str, Any] | None:
    """Return the facts in a PNG, or None where it has none."""
    with Image.open(picture) as opened:
        opened.load()
        text = getattr(opened, "text", {}).get(KEY)
    return json.loads(text) if text else None


def written(readme: str) -> str:
    """Return README's lines on the demo as they stand there.

    Raises:
        ValueError: it has no such lines.
    """
    before, start, rest = readme.partition(START)
    lines, end, _ = rest.partition(END)
    if not (start and end):
        raise ValueError(f"README.md has no lines between {START.strip()} and {END.strip()}")
    return lines


def photograph(report: Path, picture: Path) -> None:
    """Open a report in Chromium and write what is seen first."""
    import shutil

    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        seen = browser.new_page(viewport=_SIZE)
        seen.goto(report.as_uri())
        seen.screenshot(path=picture)
        browser.close()


def main() -> None:
    """Photograph a run's report, stamp the picture and write README's lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=ROOT / "outputs" / "demo", help="folder of `make demo`")
    run = parser.parse_args().run.resolve()
    facts = facts_of(run)
    photograph(run / "report.html", PICTURE)
    stamp(PICTURE, facts)
    readme = README.read_text(encoding="utf-8")
    README.write_text(readme.replace(written(readme), paragraph(facts)), encoding="utf-8")
    print(paragraph(facts))


if __name__ == "__main__":
    main()
