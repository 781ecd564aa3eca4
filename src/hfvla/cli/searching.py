"""`hfvla index` and `hfvla search`: the vectors of a folder of pictures, and the pictures that fit a text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hfvla.cli.output import run_command
from hfvla.errors import HfvlaError
from hfvla.fetching import local_checkpoint
from hfvla.paths import expand_user

if TYPE_CHECKING:
    from hfvla.family import FamilySpec

__all__ = ["index", "search", "search_pictures"]

Device = Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]
Batch = Annotated[int, typer.Option(min=1, help="Pictures a forward pass.")]
BadFraction = Annotated[
    float, typer.Option(min=0, max=1, help="Share of unreadable pictures up to which they are named and left out.")
]


def index(
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="Checkpoint folder, or a hub id.")
    ],
    gallery: Annotated[
        str, typer.Option(metavar="DIR", parser=expand_user, help="Folder of pictures; subfolders too.")
    ],
    output: Annotated[str, typer.Option(metavar="DIR", parser=expand_user, help="Folder for the index.")],
    faiss: Annotated[
        bool | None, typer.Option("--faiss/--no-faiss", help="Also a FAISS index; default: if it is installed.")
    ] = None,
    batch_size: Batch = 32,
    max_bad_fraction: BadFraction = 0.0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Embed a folder of pictures once, for many searches: Parquet, NumPy and FAISS."""

    def work() -> Any:
        from hfvla.data.gallery import list_pictures
        from hfvla.serve.index import build_index, claim_index_folder, has_faiss, write_index

        if faiss and not has_faiss():
            from hfvla.errors import MissingExtraError

            raise MissingExtraError("faiss-cpu", "index", "hfvla index --faiss")
        _check_family(checkpoint)
        list_pictures(gallery)  # a folder without any is said before the index gets one
        claim_index_folder(output)
        spec, model, processor = _load(checkpoint, device)
        embed = partial(spec.load("embed_images"), model, processor, batch_size=batch_size)
        built = build_index(embed, gallery, _facts(spec, checkpoint), max_bad_fraction)
        return write_index(built, output, faiss=faiss)

    run_command(work, _show_values, as_json)


def search(
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="Checkpoint folder, or a hub id.")
    ],
    text: Annotated[str, typer.Option(help="What is looked for.")],
    index: Annotated[
        str | None, typer.Option(metavar="DIR", parser=expand_user, help="Index of `hfvla index`.")
    ] = None,
    gallery: Annotated[
        str | None, typer.Option(metavar="DIR", parser=expand_user, help="Folder of pictures, in place of an index.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Pictures to list.")] = 5,
    sheet: Annotated[
        str | None, typer.Option(metavar="FILE", parser=expand_user, help="Draw them on a contact sheet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a contact sheet that is there.")] = False,
    max_bad_fraction: BadFraction = 0.0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """List the pictures of an index or a folder that fit a text best, with their scores."""

    def work() -> Any:
        return search_pictures(
            checkpoint, text, index=index, gallery=gallery, top_k=top_k, sheet=sheet,
            overwrite=overwrite, max_bad_fraction=max_bad_fraction, device=device,
        )  # fmt: skip

    run_command(work, _show_found, as_json)


def search_pictures(
    checkpoint: str,
    text: str,
    *,
    index: str | None = None,
    gallery: str | None = None,
    top_k: int = 5,
    sheet: str | None = None,
    overwrite: bool = False,
    max_bad_fraction: float = 0.0,
    device: str | None = None,
) -> dict[str, Any]:
    """Return {"text", "searched", "results": [{"rank", "id", "score", "path"}], "sheet"}.

    Raises:
        HfvlaError: neither or both of index and gallery; an index of another checkpoint; an empty text; a sheet
            that is there and may not be replaced.
    """
    if (index is None) == (gallery is None):
        raise HfvlaError("search an --index or a --gallery, one of the two", got=f"{index} and {gallery}")
    if not text.strip():
        raise HfvlaError("the text is empty", where="--text", expected="words")
    from hfvla.data.contact_sheet import claim_sheet
    from hfvla.serve.index import build_index, read_index

    _check_family(checkpoint)
    if sheet is not None:
        claim_sheet(sheet, overwrite)
    found = read_index(index) if index is not None else None
    spec, model, processor = _load(checkpoint, device)
    if found is None:
        embed = partial(spec.load("embed_images"), model, processor, batch_size=32)
        found = build_index(embed, str(gallery), max_bad_fraction=max_bad_fraction)
    else:
        _check_same(found.facts, _facts(spec, checkpoint), str(index))
    scores, numbers = found.search(spec.load("embed_texts")(model, processor, [text], batch_size=1), top_k)
    results = [
        {"rank": place + 1, "id": found.pictures[number].id, "score": score, "path": found.pictures[number].path}
        for place, (score, number) in enumerate(zip(scores[0].tolist(), numbers[0].tolist(), strict=True))
    ]
    answer = {"text": text, "searched": len(found.pictures), "results": results}
    if sheet is not None:
        from hfvla.data.contact_sheet import draw_sheet, save_sheet

        shown = [(one["path"], f"{one['rank']}  {one['score']:.3f}  {one['id']}") for one in results]
        save_sheet(draw_sheet(text, shown), sheet)
        answer["sheet"] = sheet
    return answer


def _check_family(checkpoint: str) -> None:
    """Refuse a checkpoint whose family embeds no pictures."""
    from hfvla.registry import family_of_checkpoint

    spec = family_of_checkpoint(checkpoint)
    if spec.path("embed_images") is None:
        raise HfvlaError("this family does not search pictures", where=checkpoint, got=spec.name)


def _load(checkpoint: str, device: str | None) -> tuple[Any, Any, Any]:
    from hfvla.cli.output import chosen_device
    from hfvla.registry import load_checkpoint

    _check_family(checkpoint)
    place = chosen_device(device)
    spec, model, processor = load_checkpoint(checkpoint)
    return spec, model.to(place), processor


def _facts(spec: FamilySpec, checkpoint: str) -> dict[str, Any]:
    """Return what an index is of; a checkpoint folder goes by the content of its weights, wherever it lies."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(local_checkpoint(checkpoint).glob("*.safetensors")):
        with path.open("rb") as file:
            for part in iter(lambda: file.read(2**24), b""):
                digest.update(part)
    return {"family": spec.name, "checkpoint": checkpoint, "weights": digest.hexdigest()}


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuse an index whose vectors another checkpoint made."""
    if before.get("weights") != now["weights"]:
        raise HfvlaError(
            "the index was made with another checkpoint",
            where=where,
            got=before.get("checkpoint"),
            expected=str(now["checkpoint"]),
            fix="Use that checkpoint, or write the index again.",
        )


def _show_values(values: Any) -> None:
    from hfvla.cli.tables import show_values

    show_values("", values)


def _show_found(found: Mapping[str, Any]) -> None:
    from hfvla.cli.tables import console, table

    out = console()
    rows = [[one["rank"], one["score"], one["id"]] for one in found["results"]]
    out.print(table(f"{found['text']} ({found['searched']} pictures)", ["rank", "score", "picture"], rows))
    if "sheet" in found:
        out.print(f"Contact sheet: {found['sheet']}", soft_wrap=True)
