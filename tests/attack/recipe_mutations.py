"""Ways to spoil a recipe: each changes a tree, or the text that is written of one, and says what must become of it.

A mutation gets a random generator and a recipe's tree, and returns a `Mutant`. What must be refused is known for most;
the others may be accepted, and then must hold what was written.
"""

from __future__ import annotations

import copy
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MUTATIONS", "Mutant", "write_yaml"]

_OPEN = ("model_args", "rope_parameters", "eval", "lr_scheduler_kwargs")  # whose keys are nobody's to check
_STRANGE = ("\x00", "\x07", "\x1b[31m", "\x7f", "\ud800")
_LETTERS = ("é", "ứ", "日本", "😀", "\u202e", "\u2028", "﷽", "A" * 5000)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 0.5, -0.0, 1e-300, "", "x", "1", "true", "null", "no", [], {}, [1], ["x"],
    {"x": 1}, [[]], [None], {"x": {"y": []}}, 2**31, 2**63, 10**20, -(10**20), 1e308,
)  # fmt: skip
_NO_NUMBERS = (float("nan"), float("inf"), float("-inf"), "x", [], 10**30, 10**4000)
_TAGS = ("!!python/object/apply:os.system", "!!python/name:os.system", "!mine", "!!binary", "!!set", "!!omap")
_WORDS = (
    "/x/run #2", "/x/a: b", "- x", "a, b", "x # y", "*.x", "&x", "%x", "it's", "a\tb", "x=y", "C:\\x", "#", "a:", "?x",
)  # fmt: skip
_BAD_OVERRIDES = (
    "seed", "=1", "seed..x=1", "stages.99.name=x", "stages.nobody.args={}", "seed.x=1", ".=1", "seed=[1", "seed='1",
    "stages=\x00", "sed=1", "args.lr=1", "stages.0.trian=[x]", "model.config.zzz_zz=1", "[0]=1",
    "seed=!!python/name:x 1", "stages[999999999999999999999]=1", "output_dir={a: [}", "name=\ud800", "args=1",
    "seed=" + "9" * 5000, "model.config=[]", "stages.0=1", "data.train.0.source=nobody", "name=\x1b[31m",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A spoilt recipe.

    Attributes:
        content: the file.
        tree: what the file and the overrides say, as plain data; None where only the reader can tell.
        overrides: of the command line.
        refused: it must be refused.
    """

    content: bytes
    tree: Any = None
    overrides: list[str] = field(default_factory=list)
    refused: bool = False


def write_yaml(tree: Any) -> str:
    """Return a tree as YAML in flow style: JSON, but for floats and whole numbers that JSON has not."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {write_yaml(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(write_yaml, tree)) + "]"
    if isinstance(tree, float):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(str(tree), repr(tree))
    return json.dumps(tree)


def _file(tree: Any) -> bytes:
    if not isinstance(tree, dict):
        return write_yaml(tree).encode()
    return "\n".join(f"{json.dumps(str(key))}: {write_yaml(value)}" for key, value in tree.items()).encode()


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value below the top."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _put(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    _at(tree, path[:-1])[path[-1]] = value


def _pick(
    rng: random.Random, tree: Any, wanted: Callable[[Any, tuple[Any, ...]], bool]
) -> tuple[Any, tuple[Any, ...]]:
    """Return a copy of the tree and the way to one of its values."""
    tree = copy.deepcopy(tree)
    return tree, rng.choice([path for path in _places(tree) if wanted(_at(tree, path), path)])


def _any(value: Any, path: tuple[Any, ...]) -> bool:
    return True


def _is_text(value: Any, path: tuple[Any, ...]) -> bool:
    return isinstance(value, str)


def _is_number(value: Any, path: tuple[Any, ...]) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and "model_args" not in path


def _is_checked(path: tuple[Any, ...]) -> bool:
    """Tell whether the keys of the mapping at a path are the recipe's to know."""
    return not (path and path[-1] in _OPEN)


def misspell_key(rng: random.Random, tree: Any) -> Mutant:
    """Misspell a key."""
    tree, path = _pick(rng, tree, lambda value, path: isinstance(path[-1], str) and _is_checked(path[:-1]))
    key, holder = path[-1], _at(tree, path[:-1])
    spot = rng.randrange(len(key))
    wrong = rng.choice(
        (f"{key[:spot]}{key[spot]}{key[spot:]}", f"{key[:spot]}{key[spot + 1 :]}z", f"{key}s_", f"{key}_q")
    )
    renamed = {wrong if name == key else name: value for name, value in holder.items()}
    holder.clear()
    holder.update(renamed)
    return Mutant(_file(tree), tree, refused=True)


def add_key(rng: random.Random, tree: Any) -> Mutant:
    """Add a key that nobody knows."""
    tree, path = _pick(rng, tree, lambda value, path: isinstance(value, dict) and _is_checked(path))
    _at(tree, path)["".join(rng.choices(string.ascii_lowercase, k=9)) + "_zq"] = rng.choice(_VALUES)
    return Mutant(_file(tree), tree, refused=True)


def other_value(rng: random.Random, tree: Any) -> Mutant:
    """Put another value in the place of one."""
    tree, path = _pick(rng, tree, _any)
    _put(tree, path, copy.deepcopy(rng.choice(_VALUES)))
    return Mutant(_file(tree), tree)


def no_number(rng: random.Random, tree: Any) -> Mutant:
    """Put what is no finite number, or one beyond any size, in the place of a number."""
    tree, path = _pick(rng, tree, _is_number)
    value = rng.choice(_NO_NUMBERS)
    _put(tree, path, "HERE")
    text = ("9" * 5000) if value == 10**4000 else write_yaml(value)
    return Mutant(_file(tree).replace(b'"HERE"', text.encode()), refused=value != [])


def lose_value(rng: random.Random, tree: Any) -> Mutant:
    """Take a key or an item away."""
    tree, path = _pick(rng, tree, _any)
    del _at(tree, path[:-1])[path[-1]]
    return Mutant(_file(tree), tree)


def twice(rng: random.Random, tree: Any) -> Mutant:
    """Give a key twice."""
    key = rng.choice(list(tree))
    return Mutant(_file(tree) + f"\n{json.dumps(key)}: {write_yaml(tree[key])}".encode(), refused=True)


def item_twice(rng: random.Random, tree: Any) -> Mutant:
    """Repeat an item of a list, once or many times."""
    tree, path = _pick(rng, tree, lambda value, path: isinstance(value, list) and bool(value))
    items = _at(tree, path)
    items.extend([copy.deepcopy(rng.choice(items)) for _ in range(rng.choice([1, 1, 1, 200]))])
    return Mutant(_file(tree), tree)


def nest(rng: random.Random, tree: Any) -> Mutant:
    """Nest a value deeper than anybody reads."""
    depth = rng.choice([70, 200, 450, 1000, 5000])
    text = "[" * depth + "]" * depth if rng.random() < 0.5 else "{a: " * depth + "1" + "}" * depth
    tree, path = _pick(rng, tree, _any)
    _put(tree, path, "HERE")
    return Mutant(_file(tree).replace(b'"HERE"', text.encode()), refused=True)


def control_letter(rng: random.Random, tree: Any) -> Mutant:
    """Put a control character, or half a letter, into a text or a key."""
    tree, path = _pick(rng, tree, _is_text)
    text, letter = _at(tree, path), rng.choice(_STRANGE)
    if rng.random() < 0.3 and isinstance(path[-1], str):
        path = (*path[:-1], path[-1] + letter)
        _put(tree, path, text)
    else:
        _put(tree, path, text + letter)
    return Mutant(_file(tree), tree, refused=True)


def foreign_letter(rng: random.Random, tree: Any) -> Mutant:
    """Put letters of the world into a text."""
    tree, path = _pick(rng, tree, _is_text)
    _put(tree, path, rng.choice(_LETTERS) + _at(tree, path))
    return Mutant(_file(tree), tree)


def alias(rng: random.Random, tree: Any) -> Mutant:
    """Refer to the shared arguments by an alias in a stage."""
    args, tree = tree.get("args", {}), copy.deepcopy(tree)
    stage = tree["stages"][rng.randrange(len(tree["stages"]))]
    own = stage.get("args", {})
    stage["args"] = "HERE"
    text = b"args: &shared " + write_yaml(args).encode() + b"\n"
    text += _file({key: value for key, value in tree.items() if key != "args"})
    extra = "".join(f", {json.dumps(key)}: {write_yaml(value)}" for key, value in own.items())
    stage["args"] = {**args, **own}
    return Mutant(text.replace(b'"HERE"', f"{{<<: *shared{extra}}}".encode()), tree)


def alias_bomb(rng: random.Random, tree: Any) -> Mutant:
    """Build a value of many values by aliases of aliases, or one that contains itself."""
    if rng.random() < 0.4:
        ends = [b"\nname: &n [*n]", b"\nargs: &a {x: *a}", b"\n<<: &m {<<: *m}"]
        return Mutant(_file(tree) + rng.choice(ends), refused=True)
    levels = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]".encode() for n in range(1, rng.choice([5, 7, 9]))]
    return Mutant(b"\n".join([*levels, _file(tree)]), refused=True)


def encoding(rng: random.Random, tree: Any) -> Mutant:
    """Write the file in another encoding."""
    text = "# é\n" + _file(tree).decode()
    name = rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "cp500"])
    return Mutant(text.encode(name), refused=True)


def flipped_bits(rng: random.Random, tree: Any) -> Mutant:
    """Flip bits of the file."""
    content = bytearray(_file(tree))
    for _ in range(rng.choice([1, 2, 8, 40])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return Mutant(bytes(content))


def cut(rng: random.Random, tree: Any) -> Mutant:
    """Cut the file, or take a part out of it."""
    content = _file(tree)
    start, end = sorted(rng.randrange(len(content)) for _ in range(2))
    return Mutant(content[:start] if rng.random() < 0.5 else content[:start] + content[end:])


def tag(rng: random.Random, tree: Any) -> Mutant:
    """Give a value a tag."""
    tree, path = _pick(rng, tree, _any)
    value = _at(tree, path)
    _put(tree, path, "HERE")
    return Mutant(_file(tree).replace(b'"HERE"', f"{rng.choice(_TAGS)} {write_yaml(value)}".encode()), refused=True)


def override_text(rng: random.Random, tree: Any) -> Mutant:
    """Set a text by an override that YAML would read as something else."""
    word = rng.choice(_WORDS)
    rest = {key: value for key, value in tree.items() if key != "output_dir"}
    return Mutant(_file(rest), {**rest, "output_dir": word}, [f"output_dir={word}"])


def override_value(rng: random.Random, tree: Any) -> Mutant:
    """Set a value of the tree by an override."""
    tree, path = _pick(rng, tree, lambda value, path: all(str(key).replace("_", "").isalnum() for key in path))
    content, value = _file(tree), copy.deepcopy(rng.choice(_VALUES))
    _put(tree, path, value)
    return Mutant(content, tree, [f"{'.'.join(map(str, path))}={write_yaml(value)}"])


def bad_override(rng: random.Random, tree: Any) -> Mutant:
    """Give an override that means nothing."""
    return Mutant(_file(tree), None, [rng.choice(_BAD_OVERRIDES)], refused=True)


MUTATIONS: dict[Callable[[random.Random, Any], Mutant], int] = {
    misspell_key: 6, add_key: 5, other_value: 8, no_number: 4, lose_value: 4, twice: 1, item_twice: 2, nest: 2,
    control_letter: 3, foreign_letter: 3, alias: 2, alias_bomb: 2, encoding: 1, flipped_bits: 4, cut: 3, tag: 2,
    override_text: 3, override_value: 4, bad_override: 3,
}  # fmt: skip
"""Mutations with how often they are drawn."""
