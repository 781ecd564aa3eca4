"""`hfvla predict`'s options of a request: made from what the checkpoint's family can be asked."""

from __future__ import annotations

import difflib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from hfvla.cli.output import run_command
from hfvla.errors import DataError, HfvlaError, did_you_mean
from hfvla.family import FamilySpec, Request, RequestField

__all__ = ["AskCommand", "asked_values", "read_request"]

_PANEL = "The request"
_META = "hfvla.cli.asking"
_METAVARS = {
    "text": "TEXT", "integer": "INTEGER", "number": "NUMBER", "numbers": "N,N,...", "picture": "FILE",
    "video": "FILE", "folder": "DIR", "output": "FILE", "data": "FILE|JSON",
}  # fmt: skip


class AskCommand(TyperCommand):
    """A command whose options also come from the family of its `--checkpoint`.

    The words after `--checkpoint` are looked at first; the family's description of a request then adds options to
    help and parsing alike. A wrong option is one line with the nearest name.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line; the request's are kept for `asked_values`."""
        checkpoint, as_json = _value_of("--checkpoint", args), "--json" in args
        spec = _family(checkpoint, as_json) if checkpoint else None
        own = _options(spec.request) if spec is not None and spec.request is not None else []
        ctx.meta[_META] = own
        try:
            rest = super().parse_args(ctx, args)
        except Exception as error:
            word = getattr(error, "option_name", None)
            if word is None:
                raise
            known = [name for option in self.get_params(ctx) for name in [*option.opts, *option.secondary_opts]]
            _fail(_unknown(word, known, spec), as_json)
        texts = {option.name.removeprefix("asked_"): ctx.params.pop(option.name) for option in own}
        ctx.meta[_META] = {name: text for name, text in texts.items() if text not in (None, [], ())}
        return rest

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options of the command and of the request."""
        own, usual = ctx.meta.get(_META), super().get_params(ctx)
        return [*usual[:1], *(own if isinstance(own, list) else ()), *usual[1:]]


def asked_values(ctx: typer.Context, request: Request | None) -> dict[str, Any]:
    """Return the values of the request that stand on the command line, by field.

    Raises:
        DataError: a text is no such value.
    """
    if request is None:
        return {}
    asked: Mapping[str, Any] = ctx.meta.get(_META, {})
    texts = {name: [text] if isinstance(text, str) else list(text) for name, text in asked.items()
             if not isinstance(text, bool)}  # fmt: skip
    return request.parse(texts) | {name: value for name, value in asked.items() if isinstance(value, bool)}


def read_request(file: str | None) -> dict[str, Any]:
    """Return the request in a JSON file, "-" for standard input; {} without a file.

    Raises:
        DataError: no such file, or no JSON object in it.
    """
    if file is None:
        return {}
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
        found = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DataError("the request cannot be read", where=f"--request {file}", got=reason) from None
    if not isinstance(found, dict):
        raise DataError("a request is an object", where=f"--request {file}", got=type(found).__name__)
    return found


def _unknown(word: str, known: Sequence[str], spec: FamilySpec | None) -> HfvlaError:
    """Return what is wrong with an option that is not there."""
    if spec is None:
        return HfvlaError(
            "what can be asked is the checkpoint's family to say", where="hfvla predict", got=word,
            fix="Name it: --checkpoint DIR; with --help its options are shown.",
        )  # fmt: skip
    asked = [field.flag for field in spec.request.fields] if spec.request else ["--request"]
    near = did_you_mean(word, asked if difflib.get_close_matches(word, asked) else known)
    return HfvlaError(f"{spec.name} is not asked by {word}. {near}", expected=", ".join(asked))


def _fail(problem: HfvlaError, as_json: bool) -> NoReturn:
    def work() -> NoReturn:
        raise problem

    run_command(work, lambda _: None, as_json)
    raise AssertionError("an error ends the command")


def _family(checkpoint: str, as_json: bool) -> FamilySpec:
    from hfvla.registry import family_of_checkpoint

    try:
        return family_of_checkpoint(checkpoint)
    except HfvlaError as error:
        _fail(error, as_json)


def _value_of(option: str, words: Sequence[str]) -> str | None:
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _options(request: Request) -> list[Any]:
    """Return the options of a request, made by typer from a signature."""

    def ask(**_: Any) -> None:
        pass

    kinds = {f"asked_{field.name}": _annotation(field) for field in request.fields}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in kinds.items()
    ]
    ask.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    ask.__annotations__ = kinds
    made = typer.Typer(add_completion=False)
    made.command()(ask)
    return [option for option in typer.main.get_command(made).params if option.name in kinds]


def _annotation(field: RequestField) -> Any:
    text = f"{field.help[:1].upper()}{field.help[1:]}."
    if field.choices:
        text += f" One of {', '.join(field.choices)}."
    if field.default is not None:
        text += f" Default: {str(field.default).lower()}."
    if field.required:
        text += " Required."
    if field.kind == "switch":
        names = f"{field.flag}/--no-{field.flag[2:]}"
        return Annotated[bool | None, typer.Option(names, help=text, rich_help_panel=_PANEL, show_default=False)]
    metavar, several = _METAVARS[field.kind], field.repeated or field.named
    if field.separator:
        metavar = f"A{field.separator}B{field.separator}..."
    elif several:
        metavar, text = f"NAME={metavar}" if field.named else metavar, f"{text} Repeat for more."
    option = typer.Option(field.flag, help=text, metavar=metavar, rich_help_panel=_PANEL, show_default=False)
    return Annotated[list[str] | None if several else str | None, option]
