"""Problems: quadratic energies over units with an exact cardinality, and what builds them from statistics."""

from annealsubnet.problems.problem import Problem

__all__ = ["Problem"]
