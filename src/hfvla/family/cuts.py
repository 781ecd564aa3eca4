"""Where a model may be cut for the feature cache."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hfvla.errors import RecipeError
from hfvla.family.groups import take_strings
from hfvla.family.sources import module_exists, resolve

__all__ = ["CACHED_FEATURES", "CUT_HOOKS", "CutContext", "FeatureCut"]

CutHook = Literal["prepare", "encode", "prompt", "augments", "plan"]

CUT_HOOKS: Mapping[CutHook, tuple[str, ...]] = {
    "prepare": ("cuts:prepare_{cut}", "build:prepare_{cut}"),
    "encode": ("cuts:encode_{cut}", "build:encode_{cut}"),
    "prompt": ("cuts:prompt_{cut}", "build:prompt_{cut}"),
    "augments": ("cuts:augments_{cut}", "build:augments_{cut}"),
    "plan": ("cuts:plan_{cut}", "batches:plan_{cut}"),
}
"""Where the functions of a family's cut lie in its package, `{cut}` its name: the first module that has one counts."""


CACHED_FEATURES = "cached_features"
"""Key of a row that comes from the feature cache: a dict of tensors by name, or None where it has nothing to encode.

A collator that finds the key in its rows uses those tensors and does not prepare what they replace."""


def _is_there(value: Any) -> bool:
    """Tell whether a field holds something: None and an empty list do not."""
    return value is not None and not (isinstance(value, list | tuple) and not value)


@dataclass(frozen=True)
class CutContext:
    """What the functions of a `FeatureCut` may use besides rows and model.

    Args:
        processor: the checkpoint's processor.
        config: the model's config; only the keys named in `FeatureCut.config` may decide what is encoded.
        losses: loss terms of the stage; empty unless `FeatureCut.uses_losses`.
    """

    processor: Any
    config: Any
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureCut:
    """Where a model may be cut: what lies before is frozen, and its output is computed once a sample and kept.

    Its functions lie in the family's package by the names of `CUT_HOOKS`, e.g. `build.encode_vision` for a cut
    "vision"; a field of the same name says otherwise, as "module:function". B rows, any of them may return tensors of
    another length for each row.

    Args:
        groups: parameter groups that lie before the cut; none of their parameters may train. The output must depend
            on no other weight.
        prepare: `prepare(context, rows) -> batch`, tensors by name that `encode` reads, from B rows. A row that is to
            be augmented carries its seed (`hfvla.data.rows.epoch.AUGMENTATION_SEED`), as in training.
        encode: `encode(model, batch) -> [{name: Tensor}] * B`, without gradients and without padding.
        fields: row fields that decide the output; equal fields are encoded once.
        required: those of `fields` without which a row has nothing to encode (no picture, say). "image|images": one of
            them will do, and the other may be no column at all, as where rows of two kinds are read.
        files: those of `fields` that hold a path, or several; the files' bytes count, not their names.
        replaces: arguments of `forward` that are not needed with cached features, e.g. pixel_values.
        provides: arguments of `forward` that the collator fills from cached features, in their place; the first
            always, the others where a model has them.
        config: config keys that decide the output; those that a model's config does not have count as None.
        processor: attributes of the processor that decide the output; default: all of it.
        prompt: `prompt(context, row) -> str`, the text as it is encoded, where the output depends on one. Optional.
        uses_losses: the output depends on which loss terms the stage has.
        losses: the only loss terms that can be computed behind the cut; default: all.
        augments: `augments(context) -> bool`, whether training would see random versions of the input. Optional.
        plan: `plan(model, batch) -> batch`: a batch of `plan_batch` with features in place of what they replace, for
            plans; the model may be on the meta device. Optional; without it, plans count the prefix in every step.
        package: the family's, and `name` the cut's; `FamilySpec` fills them in.
        version: raised by the family when `prepare` or `encode` computes something else than before.
        description: what is kept, with its shape.
    """

    groups: tuple[str, ...]
    fields: tuple[str, ...]
    replaces: tuple[str, ...]
    provides: tuple[str, ...]
    config: tuple[str, ...]
    required: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    processor: tuple[str, ...] = ()
    prepare: str | None = None
    encode: str | None = None
    prompt: str | None = None
    uses_losses: bool = False
    losses: tuple[str, ...] = ()
    augments: str | None = None
    plan: str | None = None
    version: int = 1
    description: str = ""
    package: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        """Take one string as one name."""
        take_strings(self, "groups", "fields", "replaces", "provides", "config", "required", "files", "processor")
        take_strings(self, "losses")

    @property
    def optional(self) -> tuple[str, ...]:
        """Those of `fields` that rows need not have, as another stands for them in `required`."""
        return tuple(name for names in self.required if "|" in names for name in names.split("|"))

    def other_losses(self, losses: Iterable[str]) -> list[str]:
        """Return those of some loss terms that need what lies before the cut."""
        return [name for name in losses if self.losses and name not in self.losses]

    def encodes(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row has something to encode."""
        return all(any(_is_there(row.get(name)) for name in names.split("|")) for names in self.required)

    def path(self, hook: CutHook) -> str | None:
        """Return the "module:function" of one of `CUT_HOOKS`, or None where the cut has none; imports the module."""
        given: str | None = getattr(self, hook)
        if given is not None or not self.package:
            return given
        for place in CUT_HOOKS[hook]:
            module, _, function = f"{self.package}.{place.format(cut=self.name)}".partition(":")
            if module_exists(module) and hasattr(importlib.import_module(module), function):
                return f"{module}:{function}"
        return None

    def has(self, hook: CutHook) -> bool:
        """Tell whether the cut has a function that it need not have, e.g. `cut.has("plan")`."""
        return self.path(hook) is not None

    def load(self, hook: CutHook) -> Any:
        """Return one of the functions, e.g. `cut.load("encode")`.

        Raises:
            RecipeError: the cut lacks it.
        """
        path = self.path(hook)
        if path is None:
            places = ", ".join(place.format(cut=self.name or "<cut>") for place in CUT_HOOKS[hook])
            raise RecipeError(
                f"the cut '{self.name}' has no `{hook}`", where=self.package, expected=f"one of {places}"
            )
        return resolve(path)
