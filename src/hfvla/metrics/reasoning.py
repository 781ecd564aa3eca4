"""Scores of written chains of thought: complete, about the task, consistent with itself and with the decision."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from hfvla.data.reasoning import STEP_TITLES, Reasoning, parse_reasoning
from hfvla.data.text import clean_text

__all__ = ["chain_scores", "content_words", "contradictions", "reasoning_scores"]


def content_words(text: str) -> frozenset[str]:
    """Return the lower-case words of three letters or more that are no stop words, without a plural s."""
    words = re.findall(r"[^\W\d_]{3,}", clean_text(text).lower())
    return frozenset(word[:-1] if re.search(r"[^s]s$", word) else word for word in words) - ENGLISH_STOP_WORDS


def contradictions(chain: Reasoning) -> int:
    """Count robots judged "no" yet in the chain's decision, or "yes" and not in it; 0 without a decision."""
    if not chain.decision:
        return 0
    return sum(suited != (robot in chain.decision) for robot, suited in chain.verdicts.items())


def chain_scores(text: str, task: str, decision: Sequence[str], robots: Sequence[str]) -> dict[str, float]:
    """Score one chain.

    Args:
        text: the generated chain.
        task: the task it is about.
        decision: robots that the selection head chose.
        robots: the fleet.

    Returns:
        `dict`: `four_steps` (0/1), `consistency` (0/1: names exactly the head's robots), `relevance` (share of the
        task's content words that occur), `contradictions` (count), `contradiction_free` (0/1: decides, and has none).
    """
    chain = parse_reasoning(text, robots)
    wanted = content_words(task)
    return {
        "four_steps": float(all(chain.steps.get(title, "").strip() for title in STEP_TITLES)),
        "consistency": float(set(chain.decision) == set(decision)),
        "relevance": len(wanted & content_words(text)) / len(wanted) if wanted else 1.0,
        "contradictions": float(contradictions(chain)),
        "contradiction_free": float(bool(chain.decision) and not contradictions(chain)),
    }


def reasoning_scores(
    texts: Sequence[str], tasks: Sequence[str], decisions: Sequence[Sequence[str]], robots: Sequence[str]
) -> dict[str, float]:
    """Mean of `chain_scores` over N chains.

    Raises:
        ValueError: lengths differ or there are no chains.
    """
    if not len(texts) == len(tasks) == len(decisions) or not len(texts):
        raise ValueError(f"need one task and decision a chain; got {len(texts)}, {len(tasks)}, {len(decisions)}")
    scores = [chain_scores(*chain, robots) for chain in zip(texts, tasks, decisions, strict=True)]
    return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}
