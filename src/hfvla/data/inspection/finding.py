"""Which source reads what lies at a path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfvla.data.rows.mixing import is_stream
from hfvla.data.sources.vision_language import SOURCES
from hfvla.errors import DataError, HfvlaError, did_you_mean
from hfvla.family import Source, SourceData, resolve

__all__ = ["ReadData", "read_path", "sources_of_paths"]

_MOST_REASONS = 4


@dataclass
class ReadData:
    """Rows of a path.

    Attributes:
        path: as it was given.
        source: name of the source that read it.
        data: its rows and census.
        others: further sources that read the path too, with their number of rows.
    """

    path: str
    source: str
    data: SourceData
    others: dict[str, int] = field(default_factory=dict)


def sources_of_paths(families: Mapping[str, Mapping[str, Source]]) -> dict[str, Source]:
    """Return the sources that read a path, by name; each builder once, whatever families share it.

    Args:
        families: sources by name, by family; those of public image-text sets are there in any case.
    """
    families = {"": SOURCES, **families}
    found: dict[str, Source] = {}
    builders: set[str] = set()
    for family, sources in families.items():
        for name, source in sources.items():
            fields = resolve(source.options).model_fields
            needed = [key for key, info in fields.items() if info.is_required()]
            if source.build in builders or "path" not in fields or needed not in (["path"], []):
                continue
            builders.add(source.build)
            found[name if name not in found else f"{family}:{name}"] = source
    return found


def read_path(
    path: str, sources: Mapping[str, Source], source: str | None = None, options: Mapping[str, Any] | None = None
) -> ReadData:
    """Read a file or folder with the source that makes most rows of it.

    Unusable records are counted, however many there are; sources with official splits read all of them.

    Args:
        path: of the file or folder.
        sources: of `sources_of_paths`.
        source: name of the one to use; default: all are tried.
        options: of the source.

    Raises:
        DataError: nothing is there, no such source, or none that reads it; each one's reason is given.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError("no such file or folder", where=str(path), fix="Check the path.")
    if source is not None and source not in sources:
        raise DataError(f"no source '{source}' that reads a path. {did_you_mean(source, sources)}")
    tried = {source: sources[source]} if source is not None else dict(sources)
    found: dict[str, SourceData] = {}
    reasons: dict[str, str] = {}
    for name, one in tried.items():
        try:
            data = resolve(one.build)(_options(one, str(place), options or {}, name), seed=0)
        except (HfvlaError, OSError) as error:
            if source is not None:
                raise
            reasons[name] = str(error).splitlines()[0]
            continue
        if is_stream(data.dataset):
            reasons[name] = "rows without a number; read it without streaming"
        elif len(data.dataset):
            found[name] = data
        else:
            reasons[name] = "no usable record"
    if not found:
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:_MOST_REASONS])
        raise DataError(
            "no source reads it",
            where=str(path),
            got=shown,
            fix="Name one with --source, and its options with --option.",
        )
    # Of two that make the same of it, the one that reads nothing else tells more.
    best = max(found, key=lambda name: (len(found[name].dataset), name.split(":")[-1] not in SOURCES))
    others = {name: len(data.dataset) for name, data in found.items() if name != best}
    return ReadData(str(path), best, found[best], others)


def _options(source: Source, path: str, given: Mapping[str, Any], name: str) -> Any:
    model = resolve(source.options)
    settings = {"path": path, **given}
    for key, value in (("max_bad_fraction", 1.0), ("split", "all")):
        if key in model.model_fields and key not in settings and not model.model_fields[key].is_required():
            settings[key] = value
    try:
        return model(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"source '{name}' does not take this: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            where=path,
            got=first.get("input"),
        ) from error
