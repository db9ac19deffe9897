"""Solvers of the problems: the annealer, any other dimod sampler through one door, and the exact select-and-refit."""

from annealsubnet.solvers.annealer import Annealer
from annealsubnet.solvers.door import Solution, solve
from annealsubnet.solvers.many import ManySamples

__all__ = ["Annealer", "ManySamples", "Solution", "solve"]
