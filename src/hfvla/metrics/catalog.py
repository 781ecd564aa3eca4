"""What is known of a metric by its name: its label, whether less is better, how important it is.

Free of numpy: the family contract and the command line read it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMMON", "COUNTS", "Metric", "describe"]

COUNTS = frozenset({"n", "support", "episodes", "failures"})
"""Never best, and no score: how many rows a score is of, and how many it is not of."""

_ERRORS = frozenset(
    {"ece", "mce", "loss", "nll", "error", "contradictions", "extra", "bias", "spread", "failures", "latency"}
    | {"mse", "mae", "force"}
)
"""A metric with one of these words in its last part is an error, unless it says otherwise."""


@dataclass(frozen=True)
class Metric:
    """A metric as tables, reports and `keep_best` present it.

    Args:
        name: its key, e.g. "box_iou".
        label: heading of its column; made of the name when empty.
        lower_is_better: told by the words of its name when None.
        headline: shown in the terminal's narrow table; the report shows all.
        quick: among what `compute_metrics` returns at each evaluation inside a stage, so that `keep_best` may name it.
        compute: "module:function" of `compute(eval_prediction, config) -> float` for a metric of a plug-in, which is
            then computed beside the family's own and may be named in `keep_best`.
        families: families that a plug-in's metric is for; all when empty.
    """

    name: str
    label: str = ""
    lower_is_better: bool | None = None
    headline: bool = True
    quick: bool = False
    compute: str | None = None
    families: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Return its label, or its name in words."""
        return self.label or self.name.replace("_", " ").replace("/", ": ").capitalize()

    @property
    def is_error(self) -> bool:
        """Tell whether less is better."""
        if self.lower_is_better is not None:
            return self.lower_is_better
        return any(word in self.name.split("/")[-1].split("_") for word in _ERRORS)


COMMON = {
    metric.name: metric
    for metric in (
        Metric("n", "rows"),
        Metric("exact_match", "Exact match"),
        Metric("macro_f1", "Macro F1"),
        Metric("weighted_f1", "Weighted F1", headline=False),
        Metric("f1", "F1"),
        Metric("ece", "ECE"),
        Metric("mce", "MCE"),
        Metric("ece_equal_mass", "ECE, equal mass", headline=False),
        Metric("label_ece", "ECE, per label", headline=False),
        Metric("above_chance", headline=False),
        Metric("answered", headline=False),
        Metric("failures", headline=False),
        Metric("latency_p50_s", "p50, s"),
        Metric("latency_p95_s", "p95, s"),
        Metric("latency_max_s", headline=False),
        Metric("vqa_accuracy", "VQA accuracy"),
        Metric("vqa_accuracy_cleaned", "VQA accuracy, all cleaned up", headline=False),
        Metric("exact_answer", "Exact answer"),
        Metric("circular_accuracy", "Circular accuracy"),
        Metric("asked", headline=False),
        Metric("yes_share", headline=False),
        Metric("choice_accuracy", "Choice accuracy"),
        Metric("choice_read", "Choices read", headline=False),
        Metric("box_accuracy_50", "Boxes at IoU 0.5"),
        Metric("box_read", "Boxes read", headline=False),
        Metric("cider", "CIDEr"),
        Metric("bleu", "BLEU"),
        Metric("rouge_l", "ROUGE-L"),
        Metric("text_rouge_l", "ROUGE-L, texts"),
        Metric("text_exact", "Exact text", headline=False),
        Metric("perplexity", "Perplexity", lower_is_better=True),
        Metric("tokens", headline=False),
        Metric("most_frequent", "Most frequent answer"),
        Metric("question_only", "Question only"),
        Metric("nearest_picture", "Caption of the nearest picture"),
        Metric("unigram", "Unigrams"),
        Metric("bigram", "Bigrams"),
        Metric("blank_image", "Blank picture"),
        Metric("tfidf_logreg", "TF-IDF + LR"),
        Metric("tfidf_logreg_all", "TF-IDF + LR, all sources"),
        Metric("majority", "Majority"),
        *(Metric(f"{way}_r{k}", f"{way.upper()} R@{k}") for way in ("t2i", "i2t") for k in (1, 5, 10)),
    )
}
"""Metrics, and baselines that tables name, of more than one family."""


def describe(name: str, known: dict[str, Metric] | None = None) -> Metric:
    """Return what is known of a metric; of an unknown one, what its name says."""
    return (known or {}).get(name) or COMMON.get(name) or Metric(name)
