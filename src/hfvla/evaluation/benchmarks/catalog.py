"""Which benchmarks there are: their files, what an answer looks like and how it is scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hfvla.errors import HfvlaError, did_you_mean

__all__ = ["BENCHMARKS", "STAGES", "Benchmark", "Scorer", "chosen_benchmarks"]

Scorer = Literal["choice", "yes_no", "vqa", "relaxed", "anls", "contains"]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as its files are published.

    Args:
        name: official name of the split, which VLMEvalKit's TSV file has too.
        scorer: how an answer is judged: the letter of a choice; yes or no; VQA accuracy; ChartQA's relaxed accuracy
            (numbers within 5 %); DocVQA's ANLS; or whether the answer contains a right one (OCRBench).
        also: further names of it on the command line.
        layout: of files that are no TSV, see `hfvla.evaluation.benchmarks.folders`; "" where it is always a TSV.
        circular: a question counts where it is answered rightly under all cyclic orders of its choices.
        needs: why it cannot be scored here; "" where it can.
        max_new_tokens: of an answer.
        md5: of the TSV file that VLMEvalKit publishes; another file's score is no official one, and is said so.
    """

    name: str
    scorer: Scorer
    also: tuple[str, ...] = ()
    layout: Literal["", "mme", "pope", "scienceqa", "seed"] = ""
    circular: bool = False
    needs: str = ""
    max_new_tokens: int = 32
    md5: str = ""


_JUDGE = "its official score comes from a language model as judge; run it through VLMEvalKit or lmms-eval"

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("MME", "yes_no", md5="b36b43c3f09801f5d368627fb92187c3", layout="mme"),
        Benchmark(
            "SEEDBench_IMG",
            "choice",
            md5="68017231464752261a2526d6ca3a10c0",
            also=("seed", "seedbench"),
            layout="seed",
        ),
        Benchmark(
            "MMBench_DEV_EN_V11",
            "choice",
            md5="30c05be8f2f347a50be25aa067248184",
            also=("mmbench", "mmbench_dev_en"),
            circular=True,
        ),
        Benchmark("TextVQA_VAL", "vqa", md5="b233b31f551bbf4056f2f955da3a92cd", also=("textvqa",)),
        Benchmark("AI2D_TEST", "choice", md5="0f593e0d1c7df9a3d69bf1f947e71975", also=("ai2d",)),
        Benchmark(
            "ScienceQA_VAL", "choice", md5="96320d05e142e585e7204e72affd29f3", also=("scienceqa",), layout="scienceqa"
        ),
        Benchmark("MMStar", "choice", md5="e1ecd2140806c1b1bbf54b43372efb9e"),
        Benchmark("MMMU_DEV_VAL", "choice", md5="585e8ad75e73f75dcad265dfd0417d64", also=("mmmu",)),
        Benchmark("ChartQA_TEST", "relaxed", md5="c902e0aa9be5582a7aad6dcf52734b42", also=("chartqa",)),
        Benchmark("DocVQA_VAL", "anls", md5="d5ee77e1926ff10690d469c56b73eabf", also=("docvqa",)),
        Benchmark("OCRBench", "contains", md5="e953d98a987cc6e26ef717b61260b778", max_new_tokens=64),
        Benchmark("HallusionBench", "yes_no", md5="0c23ac0dc9ef46832d7a24504f2a0c7c"),
        Benchmark("POPE", "yes_no", md5="c12f5acb142f2ef1f85a26ba2fbe41d5", layout="pope"),
        Benchmark("MathVista_MINI", "contains", ("mathvista",), needs=_JUDGE),
        Benchmark("MMVet", "contains", needs=_JUDGE),
    )
}
"""By official name."""

_ONE = ("MME", "SEEDBench_IMG")
_TWO = ("MMBench_DEV_EN_V11", "TextVQA_VAL", "AI2D_TEST", "ScienceQA_VAL")
_FOUR = ("MMMU_DEV_VAL", "MathVista_MINI", "ChartQA_TEST", "DocVQA_VAL", "OCRBench", "HallusionBench", "MMVet")

STAGES: dict[str, tuple[str, ...]] = {
    "stage1": _ONE,
    "stage2": _TWO,
    "stage3": (*_TWO, "MMStar"),
    "stage4": (*_TWO, "MMStar", *_FOUR),
}
"""What each stage of the four-stage curriculum is measured by."""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def chosen_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """Return the benchmarks of names and of stage lists, each once, in the order given.

    Args:
        names: official or short names, "stage1" to "stage4"; letter case, hyphens and underscores do not matter.

    Raises:
        HfvlaError: no names, or an unknown one; the message suggests the nearest.
    """
    known = {_plain(name): [name] for name in BENCHMARKS}
    known |= {_plain(short): [b.name] for b in BENCHMARKS.values() for short in b.also}
    known |= {_plain(stage): list(members) for stage, members in STAGES.items()}
    found: dict[str, Benchmark] = {}
    for name in names:
        if _plain(name) not in known:
            raise HfvlaError(
                f"there is no benchmark '{name}'",
                where="--benchmarks",
                expected=f"{', '.join((*STAGES, *BENCHMARKS))}",
                fix=did_you_mean(name, (*STAGES, *BENCHMARKS, *(s for b in BENCHMARKS.values() for s in b.also))),
            )
        found |= {member: BENCHMARKS[member] for member in known[_plain(name)]}
    if not found:
        raise HfvlaError("no benchmark is named", where="--benchmarks", expected=", ".join((*STAGES, *BENCHMARKS)))
    return list(found.values())
