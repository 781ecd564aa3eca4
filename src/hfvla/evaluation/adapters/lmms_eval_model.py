"""A checkpoint as a chat model of lmms-eval.

```bash
lmms-eval --model hfvla --model_args pretrained=outputs/stage2 --tasks mme --batch_size 8
```

Imported by lmms-eval only, in whose environment hfvla is installed: both need not be importable anywhere else.
"""

from __future__ import annotations

from typing import Any

from lmms_eval.api.model import lmms

from hfvla.errors import DataError, HfvlaError
from hfvla.evaluation.adapters.messages import chat_sample
from hfvla.evaluation.chat_system import load_chat_system

__all__ = ["HfvlaChat"]

_MAX_NEW_TOKENS = 64


class HfvlaChat(lmms):
    """Answers the tasks of lmms-eval that generate text, greedily.

    Args:
        pretrained: folder that `from_pretrained` loads, or hub id.
        device: torch device; lmms-eval names one by `--device`. Under a launcher each process takes its own.
        batch_size: questions a forward pass.
        dtype: of the weights, e.g. "bfloat16"; "auto" takes the checkpoint's.
        max_new_tokens: of an answer, where the task does not say.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        batch_size: int | str = 1,
        dtype: str = "auto",
        max_new_tokens: int = _MAX_NEW_TOKENS,
        **unknown: Any,
    ) -> None:
        super().__init__()
        # lmms-eval itself passes some options of its command line to every model.
        given = {
            name: value for name, value in unknown.items() if name not in ("max_batch_size",) and value is not None
        }
        if given:
            raise DataError("unknown --model_args", where="hfvla", got=", ".join(given))
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=device == "cpu")
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        place = str(self.accelerator.device) if self._world_size > 1 or device is None else device
        self.system = load_chat_system(pretrained, place, dtype)
        self.device, self.batch_size = place, int(batch_size)
        self.max_new_tokens = int(max_new_tokens)

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Return one answer a request, cut at the task's stop texts."""
        answers: list[str | None] = [None] * len(requests)
        groups: dict[int, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(self._budget(request.args[2]), []).append(number)
        for budget, members in groups.items():
            for start in range(0, len(members), self.batch_size):
                part = members[start : start + self.batch_size]
                texts = self.system.write([self._sample(requests[number]) for number in part], budget)
                for number, text in zip(part, texts, strict=True):
                    answers[number] = _cut(text, requests[number].args[2].get("until"))
                    self.cache_hook.add_partial("generate_until", requests[number].args, answers[number])
        return [answer or "" for answer in answers]

    def _budget(self, settings: Any) -> int:
        if settings.get("do_sample") or (settings.get("num_beams") or 1) > 1:
            raise DataError("this adapter answers greedily", where="hfvla", got=str(settings)[:200])
        return int(settings.get("max_new_tokens") or self.max_new_tokens)

    def _sample(self, request: Any) -> Any:
        _, messages_of, _, document, task, split = request.args
        messages = messages_of(self.task_dict[task][split][document])
        return chat_sample(f"{task}/{split}/{document}", messages)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Refuse: chat models of lmms-eval are scored by what they write."""
        raise _other_tasks("likelihoods")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Refuse tasks that go on asking."""
        raise _other_tasks("several rounds")


def _other_tasks(kind: str) -> HfvlaError:
    return HfvlaError(f"hfvla does not answer tasks of {kind}", where="lmms-eval", expected="a task of generate_until")


def _cut(text: str, until: Any) -> str:
    """Return a text up to the first stop text of a task."""
    stops = [until] if isinstance(until, str) else list(until or ())
    ends = [place for place in (text.find(stop) for stop in stops if stop) if place >= 0]
    return text[: min(ends)] if ends else text
