"""A small hub on this machine: the endpoints of the real one that a push and a download ask, in memory.

`SmallHub().start()` gives its address; `HF_ENDPOINT` and `HF_HUB_DISABLE_XET=1` point a process to it before it
imports `huggingface_hub`. A commit becomes visible as a whole; files of content that is there are not asked for again.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

TOKEN = "hf_small"
LARGE = (".safetensors", ".png", ".bin", ".onnx")


@dataclass
class Repository:
    """Commits, oldest first: (id, content hash by file name); branches and tags by name."""

    private: bool = False
    commits: list = field(default_factory=lambda: [("0" * 40, {})])
    names: dict = field(default_factory=dict)

    def at(self, revision):
        revision = self.names.get(revision, revision)
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class SmallHub(ThreadingHTTPServer):
    """The server; faults are set on it while it runs.

    Attributes:
        repositories: by name.
        blobs: content by its hash.
        requests: (method, path) of what was asked.
        uploads_left: large files it takes before it fails; None for all.
        commits_left: commits it takes before it goes away without an answer.
        away: whether it hangs up on everybody.
        more_names: names that it claims to have in every repository.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.blobs, self.requests = {}, {}, []
        self.uploads_left = self.commits_left = None
        self.more_names, self.away = [], False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def files(self, repo, revision="main"):
        """Content by name."""
        return {name: self.blobs[oid] for name, oid in self.repositories[repo].at(revision)[1].items()}

    def keep(self, content):
        oid = hashlib.sha256(content).hexdigest()
        self.blobs[oid] = content
        return oid

    def add(self, repo, files):
        """Commit files as somebody else would."""
        before = self.repositories.setdefault(repo, Repository()).at("main")[1]
        content = {**before, **{name: self.keep(data) for name, data in files.items()}}
        self.repositories[repo].commits.append((f"{len(self.repositories[repo].commits):040x}", content))

    def handle_error(self, request, client_address):
        """A client that went away is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def parse_request(self):
        return super().parse_request() and not (self.server.away and self._hang_up())

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, content, code=200, headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _missing(self, code):
        self._send({"error": code}, 404, {"X-Error-Code": code, "X-Error-Message": code})

    def _hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        return True

    def _allowed(self):
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    # ---- writing -------------------------------------------------------------------------------------------------

    def do_POST(self):
        self.server.requests.append(("POST", self.path))
        body = self._body()
        if not self._allowed():
            return self._send({"error": "Invalid credentials"}, 401)
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
            return self._batch(json.loads(body))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/([^/?]+)(\?.*)?", self.path)
        if not found or found[1] not in self.server.repositories:
            return self._missing("RepoNotFound")
        if found[2] == "preupload":
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                 "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            return self._send({"files": modes})
        return self._commit(found[1], body)

    def _create(self, wanted):
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        if name in self.server.repositories:
            return self._send(
                {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}, 409
            )
        self.server.repositories[name] = Repository(private=private)
        return self._send({"url": f"{self.server.url}/{name}", "id": name, "name": name})

    def _batch(self, wanted):
        objects = []
        for one in wanted["objects"]:
            entry = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.server.blobs:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}
            objects.append(entry)
        self._send({"transfer": "basic", "objects": objects})

    def do_PUT(self):
        self.server.requests.append(("PUT", self.path))
        body = self._body()
        if self.server.uploads_left is not None:
            if self.server.uploads_left <= 0:
                return self._send({"error": "storage is down"}, 403)
            self.server.uploads_left -= 1
        if self.server.keep(body) != self.path.rpartition("/")[2]:
            return self._send({"error": "another content"}, 400)
        return self._send({})

    def _commit(self, name, body):
        if self.server.commits_left is not None:
            if self.server.commits_left <= 0:
                return self._hang_up()
            self.server.commits_left -= 1
        repository = self.server.repositories[name]
        files = dict(repository.at("main")[1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = self.server.keep(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.blobs:
                    return self._send({"error": "a file was not uploaded"}, 400)
                files[value["path"]] = value["oid"]
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
        problem = _card_problem(self.server.blobs.get(files.get("README.md"), b""))
        if problem:
            return self._send({"error": problem}, 400)
        oid = f"{len(repository.commits):040x}"
        repository.commits.append((oid, files))
        url = f"{self.server.url}/{name}/commit/{oid}"
        return self._send({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    # ---- reading -------------------------------------------------------------------------------------------------

    def do_GET(self):
        self.server.requests.append((self.command, self.path))
        path = self.path.split("?")[0]
        if path == "/api/whoami-v2":
            return self._send({"type": "user", "name": "me"}) if self._allowed() else self._send({}, 401)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(/revision/([^/]+)|/tree/([^/]+))?", path):
            return self._describe(found[1], found[3] or found[4] or "main", tree=found[4] is not None)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(*found.groups())
        return self._missing("EntryNotFound")

    do_HEAD = do_GET  # noqa: N815

    def _commit_of(self, name, revision):
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._allowed()):
            self._missing("RepoNotFound")
            return None
        commit = repository.at(revision)
        if commit is None:
            self._missing("RevisionNotFound")
        return commit

    def _describe(self, name, revision, tree):
        commit = self._commit_of(name, revision)
        if commit is None:
            return None
        names = [*commit[1], *self.server.more_names]
        if tree:
            sizes = {one: len(self.server.blobs.get(commit[1].get(one), b"")) for one in names}
            entries = [
                {"type": "file", "path": one, "size": sizes[one], "oid": commit[1].get(one, "")} for one in names
            ]
            return self._send(entries)
        siblings = [{"rfilename": one} for one in names]
        return self._send({"id": name, "modelId": name, "sha": commit[0], "private": False, "siblings": siblings,
                           "tags": [], "downloads": 0, "likes": 0})  # fmt: skip

    def _resolve(self, name, revision, path):
        commit = self._commit_of(name, revision)
        if commit is None:
            return None
        if path not in commit[1]:
            return self._missing("EntryNotFound")
        headers = {"ETag": f'"{commit[1][path]}"', "X-Repo-Commit": commit[0]}
        return self._send(self.server.blobs[commit[1][path]], 200, headers)


def _card_problem(card):
    """As the hub does: a card whose head is no YAML mapping is refused."""
    head = re.match(rb"---\n(.*?)\n---\n", card, re.DOTALL)
    if head is None:
        return ""
    try:
        return "" if isinstance(yaml.safe_load(head[1]), dict) else "the card's head is no mapping"
    except yaml.YAMLError as error:
        return f"the card's head is no YAML: {error}"
