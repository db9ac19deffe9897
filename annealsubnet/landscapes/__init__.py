"""NK landscapes: tables over small windows of neurons, measured, solved exactly and annealed.

Example:
    >>> land = random_landscape(32, 4, seed=0)
    >>> state, energy = solve_ring(land)
    >>> abs(energy - solve_tree(land)[1]) < 1e-9
    True
"""

from annealsubnet.landscapes.annealing import Optimum, anneal
from annealsubnet.landscapes.exact import elimination_order, solve_ring, solve_tree
from annealsubnet.landscapes.landscape import Landscape, mobius, random_landscape, ring_windows, walsh, zeta
from annealsubnet.landscapes.measured import measure_landscape

__all__ = [
    "Landscape",
    "Optimum",
    "anneal",
    "elimination_order",
    "measure_landscape",
    "mobius",
    "random_landscape",
    "ring_windows",
    "solve_ring",
    "solve_tree",
    "walsh",
    "zeta",
]
