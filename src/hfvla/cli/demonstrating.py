"""`hfvla demo`: a page in a browser on which a checkpoint can be tried."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Annotated, Any

import typer

from hfvla.cli.output import chosen_device, run_command
from hfvla.errors import HfvlaError
from hfvla.paths import expand_user

__all__ = ["demo"]

logger = logging.getLogger(__name__)

Checkpoint = Annotated[
    str, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="Checkpoint folder, or a hub id.")
]
Gallery = Annotated[
    str | None,
    typer.Option(metavar="DIR", parser=expand_user, help="Folder of pictures to search, for families that search."),
]
Index = Annotated[
    str | None, typer.Option(metavar="DIR", parser=expand_user, help="Index of `hfvla index`, in place of a folder.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Device = Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")]


def demo(
    checkpoint: Checkpoint,
    gallery: Gallery = None,
    index: Index = None,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    device: Device = None,
) -> None:
    """Show a page on which a checkpoint can be tried, until it is interrupted."""
    place = {"host": host, "port": port}
    run_command(lambda: _demo(checkpoint, device, place, gallery, index), typer.echo, as_json=False)


def _demo(checkpoint: str, device: str | None, place: dict[str, Any], gallery: str | None, index: str | None) -> str:
    from hfvla.serve.http.server import bind, is_loopback
    from hfvla.serve.page import load_gradio
    from hfvla.serve.page.loading import load_page

    load_gradio()  # what is missing or taken is said before a model is loaded
    bind(place["host"], place["port"]).close()
    if gallery is not None and index is not None:
        raise HfvlaError("search a --gallery or an --index, one of the two", got="both")
    page = load_page(checkpoint, chosen_device(device), gallery=gallery, index=index)
    url = page.launch(**place)
    if not is_loopback(place["host"]):
        logger.warning("whoever reaches %s uses the model: there is no key", url)
    logger.info("the page is at %s; end with Ctrl-C", url)
    try:
        _wait()
    finally:
        page.close()
    return "The page is closed."


def _wait() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not ended.wait(0.5):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
