"""Solvers of the problems: the annealer, any other dimod sampler through one door, and the exact select-and-refit."""

from annealsubnet.solvers.annealer import Annealer

__all__ = ["Annealer"]
