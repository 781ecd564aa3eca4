"""Visual Genome's regions: a phrase for a part of a picture.

region_descriptions.json: [{"id", "regions": [{"region_id", "image_id", "x", "y", "width", "height", "phrase"}]}]
pictures: VG_100K/1.jpg, VG_100K_2/2.jpg
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hfvla.data.samples.chat import ChatSample, text_turn
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.vision_language.boxes import box_from_xywh
from hfvla.data.sources.vision_language.heads import Head
from hfvla.data.sources.vision_language.reading import Reading, field_of, record_id, text_of
from hfvla.data.sources.vision_language.records import Taken, iterate_records
from hfvla.data.sources.vision_language.splits import image_group

__all__ = ["is_visual_genome", "read_visual_genome"]


def is_visual_genome(head: Head) -> bool:
    """Tell whether a file holds region descriptions."""
    regions = head.first.get("regions")
    return isinstance(regions, list) and (not regions or {"phrase", "x", "y", "width", "height"} <= regions[0].keys())


def read_visual_genome(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a region: what is there?"""
    for head in taken.heads:
        for where, record in iterate_records(head, reading):
            regions = record.get("regions") if isinstance(record, Mapping) else None
            if not isinstance(regions, list):
                reading.reject(
                    where, record_id(record, "id", "image_id"), UnusableError("no regions", repr(record)[:120])
                )
                continue
            number = record_id(record, "id", "image_id")
            for region in regions:
                with reading.record(where, record_id(region, "region_id", "id")):
                    yield from reading.take(_sample(region, number, head, taken.source, reading))


def _sample(region: Mapping[str, object], number: str, head: Head, source: str, reading: Reading) -> ChatSample:
    phrase = text_of(field_of(region, "phrase"), "phrase")
    picture = reading.picture([f"VG_100K/{number}.jpg", f"VG_100K_2/{number}.jpg", f"{number}.jpg"], head.path)
    if reading.images is None:
        raise UnusableError("picture without a size", number)
    edges = [field_of(region, key) for key in ("x", "y", "width", "height")]
    box = box_from_xywh(edges, reading.images.size(picture.path), phrase)
    return ChatSample(
        id=record_id(region, "region_id", "id"),
        turns=(
            text_turn("user", reading.options.prompts.region.format(box=reading.box_words(box)), images=1),
            text_turn("assistant", phrase),
        ),
        images=(picture,),
        boxes=(box,),
        kind="region",
        source=source,
        group=image_group(f"{number}.jpg", "vg"),
    )
