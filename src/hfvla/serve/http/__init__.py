"""A checkpoint behind HTTP: the endpoints of its family, search, and conversations in OpenAI's protocol."""

from hfvla.serve.http.app import build_app
from hfvla.serve.http.limits import HttpLimits
from hfvla.serve.http.loading import load_service
from hfvla.serve.http.server import HttpServer, bind
from hfvla.serve.http.service import Service

__all__ = ["HttpLimits", "HttpServer", "Service", "bind", "build_app", "load_service"]
