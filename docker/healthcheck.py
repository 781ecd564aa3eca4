"""Whether the container's server answers: exit 0 if it does, or if the container runs no server.

What runs is read from the command line of process 1, so that another --port is followed.
"""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

PORTS = {"serve": ("8000", "8765"), "demo": ("7860",)}  # by command; of a server it is one of two, by the protocol
PATHS = {"serve": "/healthz", "demo": "/"}


def addresses(words: list[str]) -> list[str]:
    """Return where a command would listen; none where it is no server."""
    command = next((word for word in words if word in PORTS), None)
    if command is None or "train" in words:
        return []
    named = [b for a, b in zip(words, words[1:], strict=False) if a == "--port"] + [
        w[7:] for w in words if w.startswith("--port=")
    ]
    scheme = "https" if any(word.startswith("--tls-cert") for word in words) else "http"
    return [f"{scheme}://127.0.0.1:{port}{PATHS[command]}" for port in (named[-1:] or PORTS[command])]


def answers(url: str) -> bool:
    """Tell whether a server says that it is well."""
    context = ssl._create_unverified_context() if url.startswith("https") else None  # to itself
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:
            return answer.status == 200
    except (OSError, ValueError, urllib.error.URLError):
        return False


def main() -> int:
    """Return the exit code."""
    words = Path("/proc/1/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    asked = addresses(words)
    return 0 if not asked or any(answers(url) for url in asked) else 1


if __name__ == "__main__":
    sys.exit(main())
