"""Frozen-feature cache: the output of a model's frozen prefix, computed once a sample and read from Arrow files.

Where a model may be cut is the family's to say (`FamilySpec.feature_cuts`). What is on disk is found again only when
everything that decides it is the same: `fingerprint` and `content` say what that is.
"""

from hfvla.cache.building import FeatureCache, Split
from hfvla.cache.census import CacheCensus
from hfvla.cache.content import sample_keys
from hfvla.cache.cut import choose_cut, matches, prefix_names
from hfvla.cache.fingerprint import CACHE_VERSION, Fingerprint, build_fingerprint
from hfvla.cache.rows import CachedCollator, CachedRows
from hfvla.cache.store import FeatureStore

__all__ = [
    "CACHE_VERSION",
    "CacheCensus",
    "CachedCollator",
    "CachedRows",
    "FeatureCache",
    "FeatureStore",
    "Fingerprint",
    "Split",
    "build_fingerprint",
    "choose_cut",
    "matches",
    "prefix_names",
    "sample_keys",
]
