"""Chains: how many qubits a variable will take, predicted before anything is spent.

A clique of n variables has a known embedding: its longest chain is read from a table, measured on graphs with
one percent of defects. A sparse part embeds with shorter chains; their length is predicted from

    log L = a + b log n + c log d + e log(w + 1),

with n variables, mean degree d and w an upper bound of the treewidth (minimum-degree elimination), fitted to embeddings of
parts of real networks (`benchmarks/decompose.py --sections chains`). The smaller of the two is the prediction, as an embedding
may always be that of the clique; and parts that are nearly cliques always get that.

References:
    T. Boothby, A. D. King, A. Roy, "Fast clique minor generation in Chimera qubit connectivity graphs", Quantum Information
    Processing 15 (2016).
"""

import math
from dataclasses import dataclass

import numpy as np

from annealsubnet.arguments import check_whole
from annealsubnet.decompose import part_kernels as kernels

# Largest clique whose longest chain has 1, 2, 3, … qubits, by the better of the lattice of lines (`annealsubnet.leap.cliques`)
# and minorminer 0.2.22, with 1 % of the qubits missing (Z12 and P16).
CLIQUES = {
    "zephyr": (4, 8, 24, 40, 56, 72, 86, 102, 118, 130, 144, 158, 174, 176),
    "pegasus": (4, 10, 20, 30, 42, 54, 66, 77, 89, 99, 110, 121, 130, 141, 151),
}
_ROWS = {"zephyr": 12, "pegasus": 16}
# Above this number of variables the elimination (cubic) costs more than its answer is worth; the degree stands in for it.
_MOST_ELIMINATED = 512
# A part with this share of a clique's couplings is given the clique's template: it packs better than what a search finds.
_DENSE = 0.7
# (a, b, c, e) of the longest chain, and of the mean chain, in the module's equation.
_LONGEST = {"zephyr": (-0.53, 0.06, 0.13, 0.45), "pegasus": (-0.23, 0.03, 0.34, 0.27)}
_MEAN = {"zephyr": (-0.54, 0.01, 0.325, 0.145), "pegasus": (-0.49, -0.04, 0.415, 0.175)}


@dataclass(frozen=True)
class Chains:
    """Predicted chains of a part.

    Attributes:
        length: qubits in the longest chain.
        qubits: in all chains.
        treewidth: upper bound of the treewidth of the part's graph.
        method: "clique" if the clique's embedding is the best predicted, else "sparse".
    """

    length: int
    qubits: int
    treewidth: int
    method: str


def largest_clique(chain_length: int, *, topology: str = "zephyr", rows: int | None = None) -> int:
    """Variables of the largest clique whose chains have at most `chain_length` qubits.

    Args:
        chain_length: of the longest chain.
        topology: "zephyr" or "pegasus".
        rows: of the graph (m); by default those of the largest chips, Z12 and P16.

    Raises:
        TypeError, ValueError: for a length that is no whole number of at least 1.

    Example:
        >>> [largest_clique(length) for length in (1, 2, 3, 4)]
        [4, 8, 24, 40]
    """
    table, chain_length = CLIQUES[topology], check_whole("chain_length", chain_length, 1)
    m = _ROWS[topology] if rows is None else rows
    fits = 16 * m - 8 if topology == "zephyr" else 12 * (m - 1)
    return min(table[min(chain_length, len(table)) - 1], fits)


def clique_chains(size: int, *, topology: str = "zephyr") -> int | None:
    """Qubits in the longest chain of a clique's embedding; None for a clique that no chip holds."""
    lengths = [length for length, most in enumerate(CLIQUES[topology], start=1) if most >= size]
    return lengths[0] if lengths else None


def predict_chains(rows: np.ndarray, columns: np.ndarray, *, topology: str = "zephyr") -> Chains:
    """What the chains of a graph will be.

    Args:
        rows: where the neighbors of each variable begin (compressed rows).
        columns: neighbors.
        topology: of the solver's graph.

    Example:
        >>> predict_chains(np.array([0, 1, 2]), np.array([1, 0])).length
        1
    """
    size, entries = len(rows) - 1, len(columns)
    if entries == 0:
        return Chains(min(size, 1), size, 0, "sparse")
    degree = entries / size
    width = treewidth_bound(rows, columns)
    sparse, mean = (
        math.exp(a + b * math.log(size) + c * math.log(degree) + e * math.log(width + 1))
        for a, b, c, e in (_LONGEST[topology], _MEAN[topology])
    )
    clique = clique_chains(size, topology=topology)
    length = max(1, round(sparse))
    if clique is not None and (clique <= length or entries >= _DENSE * size * (size - 1)):
        return Chains(clique, size * clique, width, "clique")
    return Chains(length, max(size, round(size * min(mean, length))), width, "sparse")


def treewidth_bound(rows: np.ndarray, columns: np.ndarray, *, most: int = _MOST_ELIMINATED) -> int:
    """An upper bound of the treewidth of a graph given as compressed rows; n − 1 for one of more than `most` variables."""
    size = len(rows) - 1
    if size == 0:
        return 0
    if size > most:
        return size - 1
    return int(kernels.eliminated_width(np.asarray(rows, np.int64), np.asarray(columns, np.int32), size))
