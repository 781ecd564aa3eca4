"""The contract that a model family fills: its spec, groups, sources, feature cuts, requests and evaluation.

Free of torch and transformers: a recipe can be checked, and `hfvla --help` printed, without them.
"""

from hfvla.family.chat import AnswerLosses, ChatSystem
from hfvla.family.cuts import CACHED_FEATURES, CUT_HOOKS, CutContext, FeatureCut
from hfvla.family.evaluation import AnswerFile, EvaluationContext, EvaluationResult, Figure, Option
from hfvla.family.exporting import Answers, ExportPart, ExportPlan, PlainBackbone
from hfvla.family.groups import ParameterGroup, as_names, parse_group, take_strings
from hfvla.family.request import Request
from hfvla.family.request_fields import RequestField
from hfvla.family.showing import Curve, Shown
from hfvla.family.sources import Source, SourceData, resolve
from hfvla.family.spec import HOOKS, FamilySpec
from hfvla.metrics.catalog import Metric

__all__ = [
    "CACHED_FEATURES",
    "CUT_HOOKS",
    "HOOKS",
    "AnswerFile",
    "Answers",
    "AnswerLosses",
    "ChatSystem",
    "Curve",
    "CutContext",
    "EvaluationContext",
    "EvaluationResult",
    "ExportPart",
    "ExportPlan",
    "FamilySpec",
    "FeatureCut",
    "Figure",
    "Metric",
    "Option",
    "ParameterGroup",
    "PlainBackbone",
    "Request",
    "RequestField",
    "Shown",
    "Source",
    "SourceData",
    "as_names",
    "parse_group",
    "resolve",
    "take_strings",
]
