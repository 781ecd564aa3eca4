"""README's picture of the demo and the numbers beside it: `make demo`, then `python docs/make_demo.py`.

    make demo OUTPUT=outputs/8 ARGS="seed=8"        and another seed; then
    python docs/make_demo.py outputs/demo outputs/8/demo outputs/9/demo

The picture is the first run's report. It carries the runs' commit, seeds and scores in its own file, and the paragraph
in README is written from them; `tests/test_demo_numbers.py` holds the two against each other. Needs Playwright and
Chromium.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
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


def facts_of(*runs: Path) -> dict[str, Any]:
    """Return what README says of runs that differ in their seeds alone.

    Args:
        runs: output folders of `make demo`.

    Returns:
        Commit, seeds and scores to three digits: means, and of several runs standard deviations under `spread/...`.

    Raises:
        ValueError: the runs are of different commits, or two have one seed.
    """
    found = [_of_one(run) for run in runs]
    commits, seeds = {one.pop("commit") for one in found}, [one.pop("seed") for one in found]
    if len(commits) > 1 or len(set(seeds)) < len(seeds):
        raise ValueError(f"runs to be averaged are of one commit and of different seeds, not {commits} and {seeds}")
    facts: dict[str, Any] = {"commit": commits.pop(), "seeds": seeds}
    for name, value in found[0].items():
        several = [one[name] for one in found]
        facts[name] = round(mean(several), 3) if isinstance(value, float) else round(mean(several))
        if isinstance(value, float) and len(several) > 1:
            facts[f"spread/{name}"] = round(stdev(several), 3)
    return facts


def _of_one(run: Path) -> dict[str, Any]:
    """Return commit, seed and scores of one run.

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
    return {**facts, **{name: float(one) for name, one in scores.items()}}


def paragraph(facts: dict[str, Any]) -> str:
    """Return README's lines on the demo."""

    def number(name: str) -> str:
        spread = facts.get(f"spread/{name}")
        return f"{facts[name]:.3f}" + ("" if spread is None else f" ± {spread:.3f}")

    seeds = facts["seeds"]
    runs = f"one seed, {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {', '.join(map(str, seeds))} ± deviation"
    words, scene = "words/top1_in_set", "scene_only/"
    return (
        f"The demo (`make demo`, {runs}) trains for {facts['minutes']} minutes on {facts['cores']} cores and reaches\n"
        f"top-1 {number('top1_in_set')}, exact {number('exact_match')}, ECE {number('ece')}, "
        f"where TF-IDF + logistic regression has {number(words)} and\n{number('words/exact_match')}; "
        f"and {number(scene + 'with_image')} on the tasks that need the picture "
        f"(blank {number(scene + 'blank_image')}, prior {number(scene + 'prior')}).\n"
        f"The picture above is the report of seed {seeds[0]}, at commit `{facts['commit'][:7]}`.\n"
        f"It writes reasons in sentences: of {facts['chains']} held-out tasks "
        f"{number('reasoning/four_steps')} have all four steps, {number('reasoning/consistency')} decide\n"
        f"for what was picked (they are told), {number('reasoning/contradiction_free')} do not contradict "
        "themselves.\n"
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
    """Photograph the first run's report, stamp the picture and write README's lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    demo = ROOT / "outputs" / "demo"
    parser.add_argument("runs", nargs="*", type=Path, default=[demo], help="folders of `make demo`, one a seed")
    runs = [run.resolve() for run in parser.parse_args().runs]
    facts = facts_of(*runs)
    photograph(runs[0] / "report.html", PICTURE)
    stamp(PICTURE, facts)
    readme = README.read_text(encoding="utf-8")
    README.write_text(readme.replace(written(readme), paragraph(facts)), encoding="utf-8")
    print(paragraph(facts))


if __name__ == "__main__":
    main()
