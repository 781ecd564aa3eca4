"""Paths that people write: `~` is their home folder, in recipes, options and on the command line alike."""

from __future__ import annotations

import os
from typing import Annotated, Any

__all__ = ["UserPath", "expand_user"]


def expand_user(path: str) -> str:
    """Return a path with a leading `~` or `~name` as the home folder; nothing else in it is looked at.

    Hub ids and paths of nobody's home are left as they are.
    """
    return os.path.expanduser(path) if path.startswith("~") else path


class _Expanded:
    """Lets pydantic expand a text once it has checked it; names pydantic only when pydantic asks."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Return the schema of `source` with `expand_user` behind it."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(expand_user, handler(source))


UserPath = Annotated[str, _Expanded()]
"""Text of a model's field that is a path."""
