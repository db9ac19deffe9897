"""Decompose: parts of a problem that fit a solver, solved apart and put together."""

from annealsubnet.decompose.chains import Chains, largest_clique, predict_chains
from annealsubnet.decompose.decompose import decompose
from annealsubnet.decompose.decomposition import Decomposition, Part, merge
from annealsubnet.decompose.limits import PROFILES, Limits, limits_of, scale_of

__all__ = [
    "PROFILES",
    "Chains",
    "Decomposition",
    "Limits",
    "Part",
    "decompose",
    "largest_clique",
    "limits_of",
    "merge",
    "predict_chains",
    "scale_of",
]
