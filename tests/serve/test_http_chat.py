"""Conversations: OpenAI's protocol, streams, stop words, a plain model of transformers beside our families."""

import base64
import json
import os
from functools import cache

import pytest
import torch

from hfvla.data.samples.chat import ChatSample, Part, Turn, text_turn
from hfvla.data.samples.chat_pictures import reference_of
from hfvla.errors import DataError
from hfvla.nn.chat_prompt import check_turns, template_prompt
from hfvla.serve.http import HttpLimits, Service
from hfvla.serve.http.errors import RequestError
from hfvla.serve.http.openai import parse_chat

from ..data.video_clips import write_clip
from ..models.chat_vlm.zoo import made
from .http_fakes import as_text, client, parts, picture

URI = "data:image/png;base64," + as_text(picture())
PATH = "/v1/chat/completions"


def say(text="What is it?", url=URI, **more):
    shown = [{"type": "image_url", "image_url": {"url": url}}] if url else []
    return {
        "messages": [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}],
        "max_tokens": 6,
    } | more


@cache
def plain():
    """A tiny InternVL with transformers' own processor: what anybody's checkpoint is."""
    from transformers import InternVLProcessor, InternVLVideoProcessor

    _, model, processor = parts("internvl_video_qa")
    tokenizer = processor.tokenizer
    tokenizer.video_token = "<video>"
    template = (
        "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
        + tokenizer.context_image_token
        + "{% else %}{{ c['text'] }}{% endif %}{% endfor %}\n{% endfor %}assistant:"
    )
    videos = InternVLVideoProcessor(size={"height": 28, "width": 28})
    whole = InternVLProcessor(
        image_processor=processor.image_processor, tokenizer=tokenizer, video_processor=videos,
        image_seq_length=processor.tokens_per_tile, chat_template=template,
    )  # fmt: skip
    return model.backbone.eval(), whole


def chats(name):
    """A service that only chats, of one of our families or of the plain model."""
    if name == "plain":
        model, processor = plain()
        return Service("m", "internvl", chat=lambda turns, images: template_prompt(model, processor, turns, images))
    spec, model, processor = parts(name)
    chat = spec.load("chat")
    return Service("m", name, chat=lambda turns, images: chat(model, processor, turns, images))


def events(text):
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", ["plain", "ember_vlm", "internvl_video_qa"])
def test_an_answer_whole_and_in_pieces_is_what_generate_writes(name):
    served = chats(name)
    with client(served) as http:
        whole = http.post(PATH, json=say(temperature=0)).json()
        stream = http.post(PATH, json=say(temperature=0, stream=True, stream_options={"include_usage": True}))
    prompt = served.chat([text_turn("user", "What is it?", images=1)], [picture_of(URI)])
    written = prompt.model.generate(**prompt.inputs, **{**prompt.generation, "do_sample": False}, max_new_tokens=6)[0]
    written = written[prompt.inputs["input_ids"].shape[1] :] if "input_ids" in prompt.inputs else written
    text = prompt.tokenizer.decode(written, skip_special_tokens=True)
    (choice,) = whole["choices"]
    assert choice["message"] == {"role": "assistant", "content": text, "refusal": None}
    assert whole["usage"] == {
        "prompt_tokens": prompt.prompt_tokens, "completion_tokens": len(written),
        "total_tokens": prompt.prompt_tokens + len(written),
    }  # fmt: skip
    assert whole["object"] == "chat.completion" and choice["finish_reason"] in ("length", "stop")
    assert stream.headers["content-type"].startswith("text/event-stream")
    first, *middle, last, usage = events(stream.text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(one["choices"][0]["delta"]["content"] for one in middle) == text
    assert last["choices"][0]["finish_reason"] == choice["finish_reason"] and last["choices"][0]["delta"] == {}
    assert usage["usage"] == whole["usage"] and usage["choices"] == []
    assert {one["id"] for one in (first, last, usage)} == {first["id"]}


def picture_of(uri):
    from hfvla.data.pictures import load_picture

    return load_picture(base64.b64decode(uri.partition(",")[2]))


def test_the_picture_reaches_the_model():
    served = chats("plain")
    other = "data:image/png;base64," + as_text(picture((0, 255, 0)))
    seen = [served.chat([text_turn("user", "x", images=1)], [picture_of(uri)]).inputs for uri in (URI, other)]
    assert not (seen[0]["pixel_values"] == seen[1]["pixel_values"]).all()


def test_a_video_is_shown_and_its_file_is_gone_afterwards(tmp_path):
    """As vLLM's and sglang's servers take it; the model sees what training shows it."""
    from hfvla.models.chat_vlm.batches import ChatCollator
    from hfvla.models.chat_vlm.serving import chat

    model, processor = made("qwen2_5_vl")
    seen = []

    def noted(turns, images, videos=()):
        seen.append((chat(model, processor, turns, images, videos), turns, videos))
        return seen[-1][0]

    clip = write_clip(tmp_path / "a.mp4", 20)
    uri = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    body = say("What is red?", max_tokens=2, temperature=0)
    body["messages"][0]["content"].insert(1, {"type": "video_url", "video_url": {"url": uri}})
    with client(Service("m", "chat_vlm", chat=noted, takes_videos=True)) as http:
        answer = http.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    ((prompt, turns, videos),) = seen
    assert {"pixel_values", "pixel_values_videos"} <= set(prompt.inputs)
    assert prompt.prompt_tokens == answer.json()["usage"]["prompt_tokens"] and not os.path.exists(videos[0])
    turns = (*turns, text_turn("assistant", "red"))
    sample = ChatSample("a", turns, (reference_of(picture_of(URI)),), (str(clip),))
    shown = ChatCollator(processor, model.config)([sample.to_row()])
    assert torch.equal(prompt.inputs["pixel_values_videos"], shown["pixel_values_videos"])
    assert torch.equal(prompt.inputs["input_ids"], shown["input_ids"][:, : prompt.prompt_tokens])
    with client(chats("plain")) as http:
        refused = http.post(PATH, json=body)
    assert (
        refused.status_code == 400 and "video 1: this model is shown no videos" in refused.json()["error"]["message"]
    )


def test_draws_by_seed_and_stops_at_texts():
    with client(chats("plain")) as http:
        hot = {"temperature": 2.0, "max_tokens": 12}
        one, same, other = (
            http.post(PATH, json=say(**hot, seed=seed)).json()["choices"][0]["message"]["content"]
            for seed in (1, 1, 2)
        )
        assert one == same != other
        cut = one[len(one) // 2 :][:2]
        stopped = http.post(PATH, json=say(**hot, seed=1, stop=[cut])).json()["choices"][0]
        assert stopped["message"]["content"] == one[: one.index(cut)] and stopped["finish_reason"] == "stop"
        pieces = events(http.post(PATH, json=say(**hot, seed=1, stop=cut, stream=True)).text)
        assert "".join(p["choices"][0]["delta"].get("content", "") for p in pieces) == one[: one.index(cut)]


def test_the_list_of_models_and_another_model():
    with client(chats("plain")) as http:
        assert [one["id"] for one in http.get("/v1/models").json()["data"]] == ["m"]
        assert http.post(PATH, json=say(model="m", max_tokens=1)).status_code == 200
        answer = http.post(PATH, json=say(model="gpt-4"))
    assert answer.status_code == 404 and answer.json()["error"]["type"] == "not_found_error"
    assert "expected m" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "messages: no conversation"),
        ({"messages": []}, "messages: no conversation"),
        ({"messages": ["hi"]}, "messages[0]: not a message"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "no such role; got 'tool'"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0]: no content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "no such part; got 'input_audio'"),
        (
            {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": URI}}]}]},
            "'system'",
        ),
        (say(tools=[{"type": "function"}]), "tools: not supported"),
        (say(n=2), "n: not supported; got 2"),
        (say(response_format={"type": "json_object"}), "response_format: not supported"),
        (say(logprobs=True), "logprobs: not supported"),
        (say(temperature=3), "temperature: not allowed; got 3; expected 0 to 2"),
        (say(max_tokens=0), "max_tokens: not allowed; got 0"),
        (say(max_tokens=True), "max_tokens: not allowed; got True"),
        (say(top_p="1"), "top_p: not allowed"),
        (say(stop=["a"] * 5), "stop: not texts"),
        (say(stop=[""]), "stop: not texts"),
        (say(seed=2**64), "seed: not a seed"),
        (say(stream="yes"), "stream: not a switch"),
        (say(max_token=5), "max_token: no such field"),
    ],
)
def test_a_conversation_that_cannot_be_had(body, told):
    with pytest.raises(RequestError) as caught:
        parse_chat(body, HttpLimits())
    assert told in str(caught.value)


def test_what_clients_send_besides_is_taken():
    asked = parse_chat(
        say(n=1, tools=[], user="me", frequency_penalty=0, logit_bias={}, max_completion_tokens=9), HttpLimits()
    )
    assert asked.settings.max_tokens == 9 and not asked.stream
    assert [part.type for part in asked.turns[0].content] == ["image", "text"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://a.org/x.png", "this address is not fetched"),
        ("http://127.0.0.1:8000/health", "this address is not fetched"),
        ("file:///etc/passwd", "this address is not fetched"),
        ("/etc/passwd", "not base64"),
        ("data:image/png;base64,AAAA", "picture cannot be read"),
    ],
)
def test_pictures_come_with_the_request_or_not_at_all(url, told):
    with client(chats("plain")) as http:
        answer = http.post(PATH, json=say(url=url))
    assert answer.status_code in (400, 422) and told in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_pictures_of_hosts_that_the_owner_named(monkeypatch):
    from hfvla.serve.http.fetching import Fetcher

    monkeypatch.setattr(Fetcher, "_fetch", lambda self, url: picture() if url.endswith("a.png") else b"")
    with client(chats("plain"), hosts=["Pictures.org"]) as http:
        assert http.post(PATH, json=say(url="https://pictures.org/a.png")).status_code == 200
        for url in ("http://pictures.org/a.png", "https://pictures.org:81/a.png", "https://u@pictures.org/a.png",
                    "https://pictures.org.evil.org/a.png", "https://[bad/a.png"):  # fmt: skip
            answer = http.post(PATH, json=say(url=url))
            assert answer.status_code == 400 and "https from pictures.org" in answer.text


def test_a_redirection_is_not_followed():
    import http.server
    import threading
    import urllib.error

    from hfvla.serve.http.fetching import Fetcher

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(302)
            self.send_header("location", "/secret")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        fetcher = Fetcher(["127.0.0.1"], 100)
        with pytest.raises(RequestError, match="302"):
            fetcher._fetch(f"http://127.0.0.1:{server.server_port}/x")
        server.shutdown()
    assert issubclass(urllib.error.HTTPError, OSError)


def test_a_special_token_in_a_text_is_refused_before_anything_is_written():
    with client(chats("plain")) as http:
        for stream in (False, True):
            answer = http.post(PATH, json=say("show <IMG_CONTEXT> me", stream=stream))
            assert answer.status_code == 422 and "a special token in the text" in answer.text


def test_turns_that_cannot_be_continued():
    with pytest.raises(DataError, match="a user's turn at its end"):
        check_turns([text_turn("user", "a"), text_turn("assistant", "b")], 0, [])
    with pytest.raises(DataError, match="got '0 pictures'; expected 1"):
        check_turns([Turn("user", (Part("image"),))], 0, [])


def test_a_long_conversation_is_refused_and_a_long_answer_is_cut():
    _, _, processor = parts("ember_vlm")
    with client(chats("ember_vlm")) as http:
        assert http.post(PATH, json=say("word " * 3000)).status_code == 422
        whole = parts("ember_vlm")[1].config.text_config.n_positions
        used = len(processor.tokenizer("Question: hi\nAnswer:").input_ids)
        each = len(processor.tokenizer(" hi hi").input_ids) - len(processor.tokenizer(" hi").input_ids)
        text = "hi" + " hi" * ((whole - used - 6) // each)
        answer = http.post(PATH, json=say(text, url=None, max_tokens=2000)).json()
        assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    assert whole - 8 < answer["usage"]["total_tokens"] <= whole


def test_a_model_that_fails_in_the_middle_ends_its_stream_with_the_error():
    from types import SimpleNamespace

    import torch

    _, processor = plain()
    ids = processor.tokenizer("hello there you", add_special_tokens=False).input_ids

    def generate(streamer, **_):
        streamer.put(torch.tensor([[1]]))
        for token in ids:
            streamer.put(torch.tensor([token]))
        streamer.put(torch.tensor(processor.tokenizer(" \n", add_special_tokens=False).input_ids))
        raise ZeroDivisionError("a secret")

    from hfvla.nn.chat_prompt import ChatPrompt

    model = SimpleNamespace(generate=generate, generation_config=SimpleNamespace(eos_token_id=0))
    served = Service("m", "made", chat=lambda turns, images: ChatPrompt(model, {}, processor.tokenizer, 1))
    with client(served) as http:
        text = http.post(PATH, json=say(url=None, stream=True)).text
        whole = http.post(PATH, json=say(url=None))
    assert "[DONE]" not in text and "server_error" in text and "secret" not in text
    assert whole.status_code == 500 and "secret" not in whole.text
