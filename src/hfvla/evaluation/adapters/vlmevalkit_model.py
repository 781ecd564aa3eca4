"""A checkpoint as a model of VLMEvalKit; `hfvla.evaluation.adapters.vlmevalkit.register` makes it known there.

Imported where VLMEvalKit (or `ms-vlmeval`, which evalscope wraps) is installed beside hfvla.
"""

from __future__ import annotations

from typing import Any

from vlmeval.vlm.base import BaseModel

from hfvla.evaluation.adapters.messages import chat_sample
from hfvla.evaluation.chat_system import load_chat_system

__all__ = ["HfvlaVLM"]


class HfvlaVLM(BaseModel):
    """Answers VLMEvalKit's data sets of pictures, greedily, with their own prompts.

    Args:
        model_path: folder that `from_pretrained` loads, or hub id.
        device: torch device; default: a GPU if there is one.
        dtype: of the weights; "auto" takes the checkpoint's.
        max_new_tokens: of an answer.
    """

    INSTALL_REQ = False
    INTERLEAVE = True
    allowed_types = ["text", "image"]  # noqa: RUF012 - VLMEvalKit's own name and form

    def __init__(
        self, model_path: str, device: str | None = None, dtype: str = "auto", max_new_tokens: int = 128
    ) -> None:
        super().__init__()
        self.system = load_chat_system(model_path, device, dtype)
        self.max_new_tokens = max_new_tokens

    def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        """Answer one question.

        Args:
            message: parts {"type": "text" or "image", "value": text or path}, some with a "role".
            dataset: name of the data set; prompts are its own.

        Raises:
            DataError: a picture cannot be read.
        """
        turns: list[dict[str, Any]] = []
        for part in message:
            role = part.get("role", "user")
            if not turns or turns[-1]["role"] != role:
                turns.append({"role": role, "content": []})
            turns[-1]["content"].append({"type": part["type"], "value": part["value"]})
        return self.system.write([chat_sample(dataset or "message", turns)], self.max_new_tokens)[0]

    def chat_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """Answer the last question of a conversation of {"role", "content": parts}."""
        return self.system.write([chat_sample(dataset or "message", message)], self.max_new_tokens)[0]
