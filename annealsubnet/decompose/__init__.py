"""Decompose: parts of a problem that fit a solver, solved apart and put together."""

from annealsubnet.decompose.chains import Chains, largest_clique, predict_chains
from annealsubnet.decompose.contested import Contested, contested
from annealsubnet.decompose.decompose import decompose
from annealsubnet.decompose.decomposition import Decomposition, Part, merge
from annealsubnet.decompose.limits import PROFILES, Limits, limits_of, scale_of
from annealsubnet.decompose.price import PriceSolution, priced, solve_by_price
from annealsubnet.decompose.rounds import PartsSolution, solve_by_parts
from annealsubnet.decompose.shape import Shape, shape_of
from annealsubnet.decompose.summary import PartRow, Summary, summarize

__all__ = [
    "PROFILES",
    "Chains",
    "Contested",
    "Decomposition",
    "Limits",
    "Part",
    "PartRow",
    "PartsSolution",
    "PriceSolution",
    "Shape",
    "Summary",
    "contested",
    "decompose",
    "largest_clique",
    "limits_of",
    "merge",
    "predict_chains",
    "priced",
    "scale_of",
    "shape_of",
    "solve_by_parts",
    "solve_by_price",
    "summarize",
]
