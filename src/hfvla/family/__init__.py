"""The contract that a model family fills: its spec, parameter groups, data sources, feature cuts and evaluation.

Free of torch and transformers: a recipe can be checked, and `hfvla --help` printed, without them.
"""

from hfvla.family.cuts import CACHED_FEATURES, CutContext, FeatureCut
from hfvla.family.evaluation import AnswerFile, EvaluationContext, EvaluationResult, Figure, Option
from hfvla.family.groups import ParameterGroup, as_names, parse_group, take_strings
from hfvla.family.sources import Source, SourceData, resolve
from hfvla.family.spec import HOOKS, FamilySpec
from hfvla.metrics.catalog import Metric

__all__ = [
    "CACHED_FEATURES",
    "HOOKS",
    "AnswerFile",
    "CutContext",
    "EvaluationContext",
    "EvaluationResult",
    "FamilySpec",
    "FeatureCut",
    "Figure",
    "Metric",
    "Option",
    "ParameterGroup",
    "Source",
    "SourceData",
    "as_names",
    "parse_group",
    "resolve",
    "take_strings",
]
