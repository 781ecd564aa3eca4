"""How the program ends, whatever happens to it: with an exit code and at most one line, never with a traceback."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from hfvla.cli.commands import app
from hfvla.cli.output import INTERRUPTED, USER_ERROR

__all__ = ["READER_GONE", "run"]

READER_GONE = 141
"""Exit code when the reader of the output has left, as in `hfvla families | head -1`: that of SIGPIPE in a shell."""


_WITH_TRANSFORMERS = frozenset(
    ("train", "plan", "cache", "eval", "predict", "index", "search", "serve", "compare", "lora-targets", "merge")
    + ("inspect",)
)

_OF_RECIPES = ("train", "plan", "cache")
_RECIPE_KEYS = ("seed", "name", "model", "data", "args", "evaluation", "hub", "stages", "output_dir", "plugins")
_ARGUMENTS = (
    ("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "per_device_eval_batch_size")
    + ("gradient_accumulation_steps", "gradient_checkpointing", "bf16", "fp16", "optim", "report_to", "warmup_steps")
    + ("weight_decay", "logging_steps", "save_steps", "eval_steps", "lr_scheduler_type", "max_grad_norm", "deepspeed")
)
"""What scripts on `TrainingArguments` take as options, as far as people type it."""

_caller_freezes = False


class _Interrupts:
    """Remembers a Ctrl-C: what it hits may turn it into another exception, as imports of C extensions do."""

    seen = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        raise KeyboardInterrupt


class _Watched:
    """A stream that remembers the errors of writing to it, however they are handled above.

    Args:
        stream: what is written to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failures: list[OSError] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _do(self, work: Any, *values: Any) -> Any:
        try:
            return work(*values)
        except OSError as error:
            self.failures.append(error)
            raise

    def write(self, text: Any) -> Any:
        """Write."""
        return self._do(self._stream.write, text)

    def writelines(self, lines: Any) -> None:
        """Write several."""
        self._do(self._stream.writelines, lines)

    def flush(self) -> None:
        """Write what is waiting."""
        self._do(self._stream.flush)


def run(argv: Sequence[str]) -> None:
    """Run the command line.

    Args:
        argv: words after the program's name.

    Raises:
        SystemExit: always.
    """
    if sys.flags.optimize > 1 and argv and argv[0] in _WITH_TRANSFORMERS and not {"-h", "--help"} & set(argv):
        _say("error: python -OO takes away docstrings that transformers needs. Run it without -OO and PYTHONOPTIMIZE.")
        sys.exit(USER_ERROR)
    with _watched() as streams, _noticed() as interrupts, _thawed():
        code = _run(argv, streams, interrupts)
        if code == USER_ERROR:
            _hint(argv)
        for stream in streams:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        broken = [error for stream in streams for error in stream.failures]
    if any(isinstance(error, BrokenPipeError) for error in broken):
        code = READER_GONE
    elif broken:
        _say(f"error: the output cannot be written: {broken[0].strerror}")
        code = USER_ERROR
    if broken:
        _to_nowhere()
    sys.exit(code)


def _hint(argv: Sequence[str]) -> None:
    """Say how a recipe's value is given, where somebody gave one as an option."""
    for word in argv[1:] if argv and argv[0] in _OF_RECIPES else ():
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        if not word.startswith("--") or name.partition(".")[0] not in {*_RECIPE_KEYS, *_ARGUMENTS}:
            continue
        key = f"args.{name}" if name in _ARGUMENTS else name
        _say(f"A recipe's values are words without dashes: hfvla {argv[0]} RECIPE {key}=...")
        return


def _run(argv: Sequence[str], streams: Sequence[_Watched], interrupts: _Interrupts) -> int | str | None:
    """Run it and return the exit code, as far as the output has no part in it."""
    try:
        app(args=list(argv), prog_name="hfvla")
    except SystemExit as end:
        return end.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if not any(error is known for stream in streams for known in stream.failures):
            raise
        return USER_ERROR
    except BaseException:
        if not interrupts.seen:
            raise
        _say("interrupted")
        return INTERRUPTED
    return 0


@contextlib.contextmanager
def _thawed() -> Iterator[None]:
    """Give back at the end what commands took from the garbage collector; extensions complain of what is not freed.

    Counting what is frozen walks through all of it, a tenth of a second with torch in it: a caller who was found to
    freeze things itself is not asked again.
    """
    global _caller_freezes  # of this process, however many commands it runs
    _caller_freezes = _caller_freezes or gc.get_freeze_count() > 0
    try:
        yield
    finally:
        if not _caller_freezes:
            gc.unfreeze()


@contextlib.contextmanager
def _noticed() -> Iterator[_Interrupts]:
    """Notice interrupts, on the main thread and where nobody else handles them."""
    interrupts = _Interrupts()
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _watched() -> Iterator[list[_Watched]]:
    """Watch stdout and stderr, and let no character end the program: what one cannot show is written as an escape."""
    before, streams = (sys.stdout, sys.stderr), []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            continue
        if hasattr(stream, "reconfigure") and getattr(stream, "errors", None) in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
        streams.append(_Watched(stream))
        setattr(sys, name, streams[-1])
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = before


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{line}\n")


def _to_nowhere() -> None:
    """Point stdout at nothing, so that the interpreter's own last flush cannot fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.__stdout__.fileno())  # type: ignore[union-attr]
        os.close(nowhere)
