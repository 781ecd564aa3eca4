"""What the language model writes at evaluation: chains of thought, the decision in them, and plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.pictures import data_uri, read_picture
from hfvla.data.reasoning import parse_reasoning
from hfvla.family import EvaluationContext, Figure
from hfvla.metrics.plan import plan_scores
from hfvla.metrics.reasoning import chain_scores, reasoning_scores
from hfvla.metrics.selection import selection_scores, set_matrix
from hfvla.models.ember_vlm.evaluation.scores import Choices

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

__all__ = ["Written", "examples_figure", "write_answers", "written_metrics", "written_sets"]

_MAX_BATCH = 16
_MAX_EXAMPLES = 8


@dataclass(frozen=True)
class Written:
    """Generated answers.

    Attributes:
        index: rows that were asked, [M] ascending.
        answers: M `RobotAnswer`s.
        decisions: robots that each chain decides for, in the order written; empty if it decides nothing.
    """

    index: np.ndarray
    answers: list[Any]
    decisions: list[tuple[str, ...]]


def write_answers(
    model: EmberVLMForRobotSelection, processor: ProcessorMixin, rows: Any, context: EvaluationContext
) -> Written:
    """Generate an answer for at most `context.max_generate` rows, drawn by the context's seed."""
    count = min(context.max_generate, len(rows))
    index = np.sort(np.random.default_rng(context.seed).permutation(len(rows))[:count])
    size = max(1, min(context.batch_size, _MAX_BATCH))

    def write(start: int) -> list[Any]:
        batch = [rows[int(i)] for i in index[start : start + size]]
        return model.generate_answers(processor, [row["task"] for row in batch], [row["image"] for row in batch])

    written = context.processes.share(write, range(0, count, size), "write")
    answers = [answer for part in written for answer in part]
    decisions = [parse_reasoning(answer.reasoning, model.config.robots).decision for answer in answers]
    return Written(index, answers, decisions)


def written_sets(written: Written, robots: Sequence[str]) -> Choices:
    """Return the written decisions as sets [M, R]; the robot named first is the top one."""
    predicted = set_matrix(written.decisions, robots)
    ranking = predicted.astype(float)
    for row, names in enumerate(written.decisions):
        if names:
            ranking[row, robots.index(names[0])] = 2.0
    return Choices(ranking, predicted)


def written_metrics(
    written: Written, rows: Any, gold: np.ndarray, choices: Choices, robots: Sequence[str]
) -> dict[str, float]:
    """Score chains, their decisions and plans.

    Args:
        written: M answers.
        rows: the N rows they were drawn from.
        gold: [N, R] bool; rows without gold all False.
        choices: what the selection head chose for the N rows.
        robots: the fleet.

    Returns:
        `dict`: reasoning/<score> against the head's decision, written/<score> of the written decision against gold,
        head/<score> of the head on the same rows, plan/<score> where gold plans exist; with the counts as <part>/n.
    """
    if not len(written.index):
        return {}
    asked = rows.select(written.index)
    heads = [_named(row, robots) for row in choices.predicted[written.index]]
    texts = [answer.reasoning for answer in written.answers]
    scores = {f"reasoning/{k}": v for k, v in reasoning_scores(texts, list(asked["task"]), heads, robots).items()}
    scores["reasoning/n"] = len(texts)
    labelled = gold[written.index].any(axis=1)
    if labelled.any():
        known = written.index[labelled]
        chain = written_sets(written, robots).rows(np.flatnonzero(labelled))
        for name, system in (("written", chain), ("head", choices.rows(known))):
            found = selection_scores(gold[known], system.predicted, system.probabilities)
            if name == "written":  # a chain that names nobody has no top robot
                named = written.index, written.decisions
                in_set = [bool(d) and gold[i, robots.index(d[0])] for i, d in zip(*named, strict=True)]
                found["top1_in_set"] = float(np.mean(np.asarray(in_set)[labelled]))
            scores |= {f"{name}/{key}": found[key] for key in ("top1_in_set", "exact_match", "jaccard")}
        scores["written/n"] = scores["head/n"] = int(labelled.sum())
    planned = [m for m, plan in enumerate(asked["plan"]) if plan]
    if planned:
        guesses = [_steps(written.answers[m]) for m in planned]
        plans = plan_scores([asked[m]["plan"] for m in planned], guesses)
        scores |= {f"plan/{key}": value for key, value in plans.items()}
        scores["plan/n"] = len(planned)
    return scores


def _named(chosen: np.ndarray, robots: Sequence[str]) -> list[str]:
    return [robot for robot, is_chosen in zip(robots, chosen, strict=True) if is_chosen]


def _steps(answer: Any) -> list[dict[str, Any]]:
    return [{"subtask": step.subtask, "robot": step.robot, "order": step.order} for step in answer.plan]


def examples_figure(written: Written, rows: Any, gold: np.ndarray, choices: Choices, robots: Sequence[str]) -> Figure:
    """Show up to eight written answers: right and wrong ones in turn, as far as there are both."""
    exact = (gold == choices.predicted).all(axis=1)[written.index]
    right, wrong = np.flatnonzero(exact), np.flatnonzero(~exact)
    half = _MAX_EXAMPLES // 2
    take = max(half, _MAX_EXAMPLES - len(wrong))
    chosen = sorted([*right[:take], *wrong[: _MAX_EXAMPLES - min(take, len(right))]])
    examples = []
    for m in chosen:
        i, answer = int(written.index[m]), written.answers[m]
        row = rows[i]
        head = _named(choices.predicted[i], robots)
        scores = chain_scores(answer.reasoning, row["task"], head, robots)
        verdict = ("right" if exact[m] else "wrong") if gold[i].any() else "no gold"
        facts = [["Gold", ", ".join(row["robots"]) or "unknown"], ["Head's decision", ", ".join(head)]]
        facts.append(["Written decision", ", ".join(written.decisions[m]) or "none"])
        facts.append(["Contradictions", f"{scores['contradictions']:.0f}"])
        facts += [[f"Plan, step {step.order}", f"{step.robot}: {step.subtask}"] for step in answer.plan]
        examples.append(
            {
                "title": row["task"],
                "badge": verdict,
                "image": data_uri(read_picture(row["image"], row["id"])) if row["image"] is not None else None,
                "bars": {robot: float(choices.probabilities[i, r]) for r, robot in enumerate(robots)},
                "facts": facts,
                "text": answer.reasoning or answer.text,
            }
        )
    caption = "Drawn by the seed from the rows with generated text, rightly and wrongly answered ones in equal number."
    return Figure("reasoning_examples", "text_examples", "Reasoning examples", {"examples": examples}, caption)
