"""Recipes: one YAML file that says, stage by stage, what trains, on which losses and data.

`load_recipe` names everything wrong with a file at once, each with its line. Nothing here imports torch, except the
check of `args`, which asks transformers for the fields of `TrainingArguments`.
"""

from hfvla.recipe.arguments import ENGINE_ARGUMENTS
from hfvla.recipe.base import RESERVED_STAGE_NAMES
from hfvla.recipe.checks import build_options
from hfvla.recipe.data_schema import (
    DataRecipe,
    EvalSourceRecipe,
    MixtureRecipe,
    SourceRecipe,
    StageData,
    ValidationRecipe,
)
from hfvla.recipe.json_schema import recipe_json_schema
from hfvla.recipe.loading import (
    check_recipe,
    diff_recipes,
    load_recipe,
    load_resolved,
    resolved_dict,
    save_resolved,
)
from hfvla.recipe.overrides import parse_data_argument
from hfvla.recipe.schema import EvaluationRecipe, ModelRecipe, Recipe
from hfvla.recipe.stage_schema import (
    Batches,
    CacheRecipe,
    GradientReport,
    Handover,
    Lora,
    LossSchedule,
    Packing,
    Phase,
    Stage,
)

__all__ = [
    "ENGINE_ARGUMENTS",
    "RESERVED_STAGE_NAMES",
    "Batches",
    "CacheRecipe",
    "DataRecipe",
    "EvalSourceRecipe",
    "EvaluationRecipe",
    "GradientReport",
    "Handover",
    "Lora",
    "LossSchedule",
    "MixtureRecipe",
    "ModelRecipe",
    "Packing",
    "Phase",
    "Recipe",
    "SourceRecipe",
    "Stage",
    "StageData",
    "ValidationRecipe",
    "build_options",
    "check_recipe",
    "diff_recipes",
    "load_recipe",
    "load_resolved",
    "parse_data_argument",
    "recipe_json_schema",
    "resolved_dict",
    "save_resolved",
]
