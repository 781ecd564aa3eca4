"""From `Shown` to what stands on a page."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hfvla.family import Curve, Shown

__all__ = ["Views"]


class Views:
    """Components for each part of an answer, hidden until there is one; made where they are to stand.

    Args:
        gradio: the library.
        folder: takes films.
        name: begins the components' ids.
    """

    def __init__(self, gradio: Any, folder: Path, name: str = "answer") -> None:
        self._gradio, self._folder = gradio, folder
        self.text = gradio.Markdown(elem_id=f"{name}-text")
        self.confidences = gradio.Label(label="confidence", visible=False, elem_id=f"{name}-confidences")
        self.table = gradio.Dataframe(visible=False, interactive=False, elem_id=f"{name}-table")
        self.pictures = gradio.Gallery(
            visible=False, label="pictures", elem_id=f"{name}-pictures", object_fit="contain"
        )
        self.film = gradio.Video(visible=False, label="film", elem_id=f"{name}-film", height=360)
        self.curve = gradio.Plot(visible=False, show_label=False, elem_id=f"{name}-curve")

    @property
    def outputs(self) -> list[Any]:
        """The components, in the order of `update`."""
        return [self.text, self.confidences, self.table, self.pictures, self.film, self.curve]

    def update(self, shown: Shown) -> list[Any]:
        """Return what the components become."""
        made = self._gradio
        table = {"headers": list(shown.headings), "data": [list(row) for row in shown.rows]}
        film = None
        if shown.film:
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".mp4", delete=False) as file:
                file.write(shown.film)
            film = file.name
        return [
            made.Markdown(shown.text),
            made.Label(dict(shown.confidences) or None, visible=bool(shown.confidences)),
            made.Dataframe(table if shown.rows else None, visible=bool(shown.rows)),
            made.Gallery(list(shown.pictures) or None, visible=bool(shown.pictures)),
            made.Video(film, visible=film is not None),
            made.Plot(None if shown.curve is None else draw(shown.curve), visible=shown.curve is not None),
        ]


def draw(curve: Curve) -> Any:
    """Return a matplotlib figure, drawn without pyplot: pages are made in several threads."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    for name, values in curve.lines.items():
        axes.plot(curve.x, values, label=name.replace("$", r"\$"))
    axes.set_xlabel(curve.x_label)
    axes.set_ylabel(curve.y_label)
    axes.set_title(curve.title)
    axes.grid(alpha=0.3)
    if len(curve.lines) > 1:
        axes.legend(fontsize="small", ncols=4)
    return figure
