"""The page: one tab for each thing that the checkpoint can do."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfvla.data.pictures import load_picture
from hfvla.data.samples.chat import Part, Turn
from hfvla.errors import HfvlaError, MissingExtraError
from hfvla.family import Request, Shown
from hfvla.serve.http.openai import ChatSettings
from hfvla.serve.http.service import Service
from hfvla.serve.page.fields import form_of, request_of
from hfvla.serve.page.views import Views

__all__ = ["DemoPage", "load_gradio"]

logger = logging.getLogger(__name__)

_MOST_TOKENS = 256


def load_gradio() -> Any:
    """Import Gradio, which asks nobody and tells nobody.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise MissingExtraError("gradio", "demo", "hfvla demo") from None
    return gradio


class DemoPage:
    """A Gradio page around one checkpoint.

    Args:
        service: what it can do.
        show: an answer as a person looks at it; None shows it as JSON.
        episode: an episode of a policy by (seed, steps); None where there is none.
        names: of a named field's values, e.g. the cameras.
        search: `search(text, top_k) -> reply` over a folder of pictures; None where there is none.

    Raises:
        MissingExtraError: Gradio is not installed.
    """

    def __init__(
        self,
        service: Service,
        *,
        show: Callable[[Mapping[str, Any], Mapping[str, Any]], Shown] | None = None,
        episode: Callable[[int, int], Shown] | None = None,
        names: tuple[str, ...] = (),
        search: Callable[[str, int], Mapping[str, Any]] | None = None,
    ) -> None:
        self.service, self._show, self._episode = service, show, episode
        self._names, self._search = names, search
        self._gradio = load_gradio()
        self._model = threading.Lock()  # one visitor at a time has the model
        self._folder = tempfile.TemporaryDirectory(prefix="hfvla-demo-")
        self.blocks = self._build()

    def launch(self, host: str, port: int) -> str:
        """Show the page; return its address.

        Raises:
            HfvlaError: the address cannot be listened on.
        """
        try:
            _, url, _ = self.blocks.queue(max_size=32).launch(
                server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
                inbrowser=False, max_file_size="64mb", allowed_paths=[self._folder.name],
            )  # fmt: skip
        except OSError as error:
            fix = "Choose another --port or --host."
            raise HfvlaError(f"cannot listen: {error}", where=f"{host}:{port}", fix=fix) from error
        return str(url)

    def close(self) -> None:
        """Take the page away."""
        self.blocks.close()
        self._folder.cleanup()

    def _build(self) -> Any:
        made = self._gradio
        with made.Blocks(title=f"hfvla: {self.service.name}", analytics_enabled=False) as blocks:
            made.Markdown(f"# {self.service.name}\n{self.service.family}: {self.service.summary}")
            with made.Tabs():
                if self._search is not None:
                    with made.Tab("Search"):
                        self._search_tab()
                if self.service.request is not None and self.service.engine is not None:
                    with made.Tab("Ask"):
                        self._ask_tab(self.service.request)
                if self._episode is not None:
                    with made.Tab("Episode"):
                        self._episode_tab()
                if self.service.chat is not None:
                    with made.Tab("Chat"):
                        self._chat_tab()
        return blocks

    def _ask_tab(self, request: Request) -> None:
        made = self._gradio
        made.Markdown(request.description)
        with made.Row():
            with made.Column():
                inputs = form_of(made, request, self._names)
                button = made.Button("Ask", variant="primary", elem_id="ask")
            with made.Column():
                views = Views(made, Path(self._folder.name))

        def answer(*values: Any) -> list[Any]:
            def work() -> Shown:
                asked = request_of(request, values, self._names)
                assert self.service.engine is not None
                (reply,) = self.service.engine.answer([asked])
                if isinstance(reply, Exception):
                    raise reply
                return self._shown(asked, reply)

            return self._told(views, work)

        button.click(answer, inputs, views.outputs, api_name=False)

    def _search_tab(self) -> None:
        made = self._gradio
        with made.Row():
            text = made.Textbox(label="text", info="what is looked for", elem_id="search-text", scale=4)
            count = made.Number(label="pictures", value=6, precision=0, minimum=1, maximum=50)
        button = made.Button("Search", variant="primary", elem_id="search")
        views = Views(made, Path(self._folder.name), "found")

        def answer(words: str, top_k: float) -> list[Any]:
            def work() -> Shown:
                if not (words or "").strip():
                    raise HfvlaError("the text is empty", expected="words")
                assert self._search is not None
                return self._shown({"text": words}, self._search(words, max(1, min(50, int(top_k or 1)))))

            return self._told(views, work)

        button.click(answer, [text, count], views.outputs, api_name=False)
        text.submit(answer, [text, count], views.outputs, api_name=False)

    def _episode_tab(self) -> None:
        made = self._gradio
        made.Markdown("The policy in its simulator, on an episode that no recording holds.")
        with made.Row():
            seed = made.Number(label="episode", value=0, precision=0, minimum=0, elem_id="episode-seed")
            steps = made.Number(label="most steps", info="0: the simulator's own", value=0, precision=0, minimum=0,
                                elem_id="episode-steps")  # fmt: skip
        button = made.Button("Watch", variant="primary", elem_id="watch")
        views = Views(made, Path(self._folder.name), "episode")

        def answer(number: float, most: float) -> list[Any]:
            assert self._episode is not None
            return self._told(views, lambda: self._episode(int(number or 0), int(most or 0)))  # type: ignore[misc]

        button.click(answer, [seed, steps], views.outputs, api_name=False)

    def _chat_tab(self) -> None:
        made = self._gradio

        def answer(message: Mapping[str, Any], history: list[Mapping[str, Any]]) -> str:
            try:
                with self._model:
                    return self._written(message, history)
            except HfvlaError as error:
                raise made.Error(str(error)) from None

        made.ChatInterface(
            answer, multimodal=True, api_name=False, save_history=False,
            textbox=made.MultimodalTextbox(file_types=["image"], file_count="multiple", placeholder="Say something",
                                           elem_id="chat-text"),
        )  # fmt: skip

    def _written(self, message: Mapping[str, Any], history: list[Mapping[str, Any]]) -> str:
        """Return the model's next words.

        Raises:
            DataError: the conversation cannot be continued.
        """
        from hfvla.serve.http.writing import written

        turns: list[Turn] = []
        images: list[Any] = []
        for entry in [*history, {"role": "user", "content": _parts(message)}]:
            parts = entry["content"] if isinstance(entry["content"], list) else [entry["content"]]
            content: list[Part] = []
            for part in parts:
                path = _path_of(part)
                if path is not None:
                    images.append(load_picture(path, Path(path).name))
                    content.append(Part("image"))
                else:
                    content.append(Part("text", part if isinstance(part, str) else str(part.get("text", ""))))
            if turns and turns[-1].role == entry["role"]:  # files come as messages of their own
                turns[-1] = Turn(entry["role"], (*turns[-1].content, *content))
            else:
                turns.append(Turn(entry["role"], tuple(content)))
        assert self.service.chat is not None
        return written(self.service.chat(turns, images), ChatSettings(_MOST_TOKENS, temperature=0.0))

    def _shown(self, asked: Mapping[str, Any], reply: Mapping[str, Any]) -> Shown:
        if self._show is not None:
            return self._show(asked, reply)
        import json

        return Shown(f"```json\n{json.dumps(reply, indent=2, ensure_ascii=False)}\n```")

    def _told(self, views: Views, work: Callable[[], Shown]) -> list[Any]:
        """Return what the page shows; an error of ours is told as one line, in its place."""
        try:
            with self._model:
                return views.update(work())
        except HfvlaError as error:
            return views.update(Shown(f"**It cannot be answered:** {_literal(str(error))}"))
        except Exception:
            logger.exception("a request of the page failed")
            return views.update(Shown("**The server failed;** its log says why."))


def _parts(message: Mapping[str, Any]) -> list[Any]:
    """Return the parts of a new message: its files, then its text."""
    files = [{"path": file if isinstance(file, str) else file["path"]} for file in message.get("files") or ()]
    text = (message.get("text") or "").strip()
    return [*files, *([text] if text else [])]


def _path_of(part: Any) -> str | None:
    """Return the file that a part of a message shows; Gradio has had several forms for it."""
    if isinstance(part, tuple | list) and part:
        return str(part[0])
    if not isinstance(part, Mapping):
        return None
    file = part.get("file") or part
    return file.get("path") if isinstance(file, Mapping) else None


def _literal(text: str) -> str:
    """Return a text as it is, whatever signs of Markdown or HTML are in it."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()#+!<>|~$&" else letter for letter in text)
