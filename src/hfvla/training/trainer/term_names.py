"""Names of loss terms in a script: what the first batch gives tells a misspelled one before an epoch has passed."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from hfvla.errors import TrainingError, did_you_mean
from hfvla.recipe import Stage
from hfvla.training.stage.phases import peak_weights

__all__ = ["check_first_terms", "check_output"]

logger = logging.getLogger(__name__)

_ALIKE = 0.75


def check_output(output: Any, stage: Stage) -> None:
    """Look at the form of a model's first output.

    Raises:
        TrainingError: no mapping, no loss in it, or terms that are not [] tensors by name.
    """
    where = f"stage '{stage.name}'"
    if not isinstance(output, Mapping):
        raise TrainingError(
            "a model's forward returns a mapping", where=where, got=type(output).__name__,
            expected="a ModelOutput, or a dict, with `loss` or `loss_terms`",
        )  # fmt: skip
    terms = output.get("loss_terms")
    if terms is None and output.get("loss") is None:
        raise TrainingError(
            "the model's output has neither `loss` nor `loss_terms`", where=where, got=", ".join(output),
            fix="Return one of them from forward; rows without labels often have none.",
        )  # fmt: skip
    if terms is not None and not isinstance(terms, Mapping):
        raise TrainingError("`loss_terms` is a mapping", where=where, got=type(terms).__name__,
                            expected="{name: tensor}")  # fmt: skip
    for name, term in (terms or {"loss": output.get("loss")}).items():
        if not isinstance(term, Tensor) or term.numel() != 1:
            shaped = isinstance(term, Tensor)
            raise TrainingError(
                f"the loss term '{name}' is no single number", where=where,
                got=f"shape {list(term.shape)}" if shaped else type(term).__name__, expected="a tensor of shape []",
                fix="Take its mean." if shaped else "Leave it a tensor: .item() and float() take its gradient away.",
            )  # fmt: skip


def check_first_terms(stage: Stage, given: Collection[str], own_loss: bool) -> None:
    """Look at the first batch of a stage whose family nobody knows, so that its names could not be checked before.

    A batch may lack a term (a row without a caption), so a name that nothing resembles is a warning here and an error
    when an epoch has passed without it.

    Args:
        stage: the stage, all its phases.
        given: names of the terms that the batch gave.
        own_loss: the model's output has no `loss_terms` at all, and "loss" stands for its own loss.

    Raises:
        TrainingError: a name that is another one's with a letter wrong, or terms of a model that has no terms.
    """
    weighed = {name for name, peak in peak_weights(stage).items() if peak}
    missing = sorted(weighed - set(given))
    free = sorted(set(given) - weighed)
    if not missing or not given:
        return
    where = f"stage '{stage.name}'"
    if own_loss:
        raise TrainingError(
            f"this model has no loss term '{missing[0]}': its output has no `loss_terms`", where=where,
            got=f"losses {', '.join(sorted(weighed))}",
            fix="Write losses={'loss': 1.0} for its own loss, or return loss_terms={name: tensor} from forward.",
        )  # fmt: skip
    for name in missing:
        meant = next((other for other in free if _misspelled(name, other)), None)
        if meant is not None:
            raise TrainingError(
                f"the model gives no loss term '{name}'. Did you mean '{meant}'?", where=where,
                got=", ".join(sorted(given)), fix=f"Write losses={{'{meant}': ...}}.",
            )  # fmt: skip
    near = did_you_mean(missing[0], free) if free else ""
    logger.warning(
        "%s: the first batch gives no '%s', but %s%s; a whole epoch without it ends the training",
        where, "', '".join(missing), ", ".join(sorted(given)), f" ({near})" if near.startswith("Did") else "",
    )  # fmt: skip


def _misspelled(name: str, other: str) -> bool:
    """Tell whether two names are one; those that differ in their last letter alone (`itc`, `itm`) may be two."""
    alike = difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio() >= _ALIKE
    return alike and name[:-1] != other[:-1]
