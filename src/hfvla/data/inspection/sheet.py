"""A contact sheet: one HTML page of samples, boxes drawn, what is learned marked; it needs no other file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from hfvla.data.inspection.rows import Said
from hfvla.data.inspection.seen import SeenRow
from hfvla.data.pictures import data_uri
from hfvla.data.samples.chat import Box

__all__ = ["SheetSample", "draw_boxes", "sheet_html"]

_SIDE = 256  # what `data_uri` keeps
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 24px; color: #1a1a1a; background: #fafafa }
article { background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: 12px 16px; margin: 0 0 16px }
h2 { font-size: 15px; margin: 0 0 8px; overflow-wrap: anywhere } h2 small { color: #666; font-weight: normal }
figure { display: inline-block; margin: 0 12px 8px 0; vertical-align: top }
figure img { max-width: 256px; border: 1px solid #ccc } figcaption { color: #666; font-size: 12px }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 4px 0; font: 13px/1.5 ui-monospace, monospace }
b.who { color: #555 } mark { background: #c8f0c8; border-radius: 2px } .error { color: #a00 }
"""


@dataclass
class SheetSample:
    """A sample on the sheet.

    Attributes:
        name: of the row.
        facts: shown beside the name: source, kind, group.
        pictures: as stored, decoded.
        boxes: drawn into them.
        texts: as stored.
        seen: as a model sees it, where one was asked for.
        problem: why it could not be shown, "" otherwise.
    """

    name: str
    facts: dict[str, str] = field(default_factory=dict)
    pictures: list[Image.Image] = field(default_factory=list)
    boxes: tuple[Box, ...] = ()
    texts: list[Said] = field(default_factory=list)
    seen: SeenRow | None = None
    problem: str = ""


def draw_boxes(picture: Image.Image, boxes: Sequence[Box], side: int = _SIDE) -> Image.Image:
    """Return a smaller copy of a picture with boxes and their labels drawn.

    Args:
        picture: as displayed.
        boxes: of this picture; crowds are dashed by a thinner line.
        side: longest side of the copy, in pixels.
    """
    shown = picture.copy()
    shown.thumbnail((side, side))
    draw = ImageDraw.Draw(shown)
    for number, box in enumerate(boxes):
        left, top, right, bottom = box.normalised
        colour = _COLOURS[number % len(_COLOURS)]
        across, down = shown.width - 1, shown.height - 1
        corners = (left * across, top * down, right * across, bottom * down)
        draw.rectangle(corners, outline=colour, width=1 if box.crowd else 2)
        label = box.label[:40]
        where = draw.textbbox((corners[0] + 2, corners[1] + 1), label)
        draw.rectangle(where, fill="#ffffff")
        draw.text((corners[0] + 2, corners[1] + 1), label, fill=colour)
    return shown


def sheet_html(title: str, samples: Sequence[SheetSample], note: str = "") -> str:
    """Return the page.

    Args:
        title: heading.
        samples: in order.
        note: a sentence below the heading.
    """
    body = "\n".join(_article(sample) for sample in samples)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(note)} <mark>Marked</mark> text is learned.</p>\n{body}\n"
        "</body></html>\n"
    )


def _article(sample: SheetSample) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in sample.facts.items() if value)
    parts = [f"<article><h2>{html.escape(sample.name)} <small>{html.escape(facts)}</small></h2>"]
    if sample.problem:
        parts.append(f'<p class="error">{html.escape(sample.problem)}</p>')
    for number, picture in enumerate(sample.pictures):
        own = [box for box in sample.boxes if box.image == number]
        caption = f"{picture.width} x {picture.height}" + (f", {len(own)} boxes" if own else "")
        parts.append(_figure(draw_boxes(picture, own), caption))
    if sample.seen is None:
        parts += [_said(text.who, text.text, text.learned) for text in sample.texts]
    else:
        seen = sample.seen
        for picture in seen.pictures:
            caption = f"{picture.width} x {picture.height}, as the model sees it"
            parts.append(_figure(draw_boxes(picture, ()), caption))
        for sequence in seen.texts:
            spans = "".join(_marked(span.text, span.learned) for span in sequence)
            parts.append(f"<pre>{spans}</pre>")
        parts.append(f"<p>{seen.tokens} tokens, {seen.learned} learned</p>")
    return "".join(parts) + "</article>"


def _figure(picture: Image.Image, caption: str) -> str:
    uri = data_uri(np.asarray(picture.convert("RGB")))
    return f'<figure><img src="{uri}" alt=""><figcaption>{html.escape(caption)}</figcaption></figure>'


def _said(who: str, text: str, learned: bool) -> str:
    return f'<pre><b class="who">{html.escape(who)}:</b> {_marked(text, learned)}</pre>'


def _marked(text: str, learned: bool) -> str:
    return f"<mark>{html.escape(text)}</mark>" if learned else html.escape(text)
