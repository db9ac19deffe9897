"""Problems: energies over units, quadratic, with how many of them an answer keeps."""

from annealsubnet.problems.exchanges import Support
from annealsubnet.problems.fan_in import fan_in_problem
from annealsubnet.problems.gates import gate_problem
from annealsubnet.problems.low_rank import LowRankProblem
from annealsubnet.problems.problem import Couplings, Problem
from annealsubnet.problems.sparse import Sparsified, sparsify
from annealsubnet.problems.units import relative_importance, site_problem

__all__ = [
    "Couplings",
    "LowRankProblem",
    "Problem",
    "Sparsified",
    "Support",
    "fan_in_problem",
    "gate_problem",
    "relative_importance",
    "site_problem",
    "sparsify",
]
