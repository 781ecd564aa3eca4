"""From a checkpoint to its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from hfvla.errors import HfvlaError
from hfvla.serve.http.engine import TorchEngine
from hfvla.serve.http.loading import load_service
from hfvla.serve.http.service import PictureSearch
from hfvla.serve.page.page import DemoPage

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

    from hfvla.family import FamilySpec

__all__ = ["load_page"]


def load_page(checkpoint: str, device: str, *, gallery: str | None = None, index: str | None = None) -> DemoPage:
    """Load a checkpoint, and make its page.

    Args:
        checkpoint: folder, or a hub id.
        device: torch device.
        gallery: folder of pictures that texts are searched in; embedded now.
        index: of `hfvla index`, in its place.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        HfvlaError: it answers nothing, or does not search pictures.
        MissingExtraError: Gradio is not installed.
    """
    service = load_service(checkpoint, device, index=index, engine="pytorch")  # `show` looks into the model
    engine = service.engine
    if not isinstance(engine, TorchEngine):
        return DemoPage(service)
    spec, model, processor = engine.spec, engine.model, engine.processor

    def bound(hook: str) -> Callable[..., Any] | None:
        return partial(spec.load(hook), model, processor) if spec.has(hook) else None

    found = service.search
    if gallery is not None:
        found = _embedded(spec, model, processor, gallery)
    return DemoPage(
        service, show=bound("show"), episode=bound("episode"), names=tuple(getattr(processor, "views", None) or ()),
        search=None if found is None else partial(_search, found),
    )  # fmt: skip


def _embedded(spec: FamilySpec, model: PreTrainedModel, processor: ProcessorMixin, gallery: str) -> PictureSearch:
    from hfvla.serve.index import build_index

    if spec.path("embed_images") is None:
        raise HfvlaError("this family does not search pictures", where="--gallery", got=spec.name)
    index = build_index(partial(spec.load("embed_images"), model, processor, batch_size=32), gallery)
    embed = spec.load("embed_texts")
    return PictureSearch(index, lambda texts: embed(model, processor, texts, batch_size=max(1, len(texts))))


def _search(search: PictureSearch, text: str, top_k: int) -> Mapping[str, Any]:
    """Return what was found, with the pictures' files: the page reads them here."""
    (reply,) = search.find([(text, top_k)])
    files = {picture.id: picture.path for picture in search.index.pictures}
    return reply | {"results": [one | {"path": files[one["id"]]} for one in reply["results"]]}
