"""The keys of a recipe that are hfvla's own: pages name each of them."""

THEIRS = {
    "args",
    "backbone_config",
    "vision_config",
    "text_config",
    "model_args",
    "losses",
    "learning_rates",
    "eval",
    "runs",
}
"""Sections whose keys are transformers', timm's, loss terms, parameter groups or names of one's own."""


def keys_of(tree, inside=""):
    """Yield the keys of a recipe that are hfvla's own."""
    if isinstance(tree, list):
        for part in tree:
            yield from keys_of(part, inside)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield str(key)
            if key not in THEIRS and not (inside == "options" and isinstance(value, dict)):
                yield from keys_of(value, str(key))
