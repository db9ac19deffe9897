"""What a decomposition is like: how much coupling its parts hold, and what they will take of a chip."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from annealsubnet.decompose import part_kernels as kernels
from annealsubnet.decompose.chains import predict_chains
from annealsubnet.decompose.decomposition import Decomposition
from annealsubnet.decompose.limits import scale_of
from annealsubnet.decompose.partition import compressed


@dataclass(frozen=True)
class PartRow:
    """One part of a decomposition.

    Attributes:
        part: its number.
        variables: how many it has.
        degree: most couplings of one variable inside the part.
        couplings: inside the part.
        treewidth: an upper bound.
        chain_length: predicted qubits in its longest chain.
        qubits: predicted, in all chains.
        found_chain_length: in the longest chain of its embedding; None as long as it has none.
        found_qubits: of its embedding.
        scale: by what its Ising form is multiplied to fit the solver's ranges, without its boundary.
    """

    part: int
    variables: int
    degree: int
    couplings: int
    treewidth: int
    chain_length: int
    qubits: int
    found_chain_length: int | None
    found_qubits: int | None
    scale: float


@dataclass(frozen=True)
class Summary:
    """A decomposition in figures.

    Attributes:
        rows: one a part.
        share_inside: Σ |couplings inside some part| / Σ |couplings|.
        colors: how many batches its parts are solved in.
    """

    rows: tuple[PartRow, ...]
    share_inside: float
    colors: int

    def __repr__(self) -> str:
        longest = max((row.chain_length for row in self.rows), default=0)
        largest = max((row.variables for row in self.rows), default=0)
        return (
            f"Summary({len(self.rows)} parts of up to {largest} variables, {self.share_inside:.1%} of the coupling inside, "
            f"chains of up to {longest} predicted)"
        )


def summarize(decomposition: Decomposition, found: Mapping[int, tuple[int, int]] | None = None) -> Summary:
    """Figures of every part.

    Args:
        decomposition: any.
        found: (longest chain, qubits) of the parts that were embedded, by number.

    Example:
        >>> from annealsubnet.decompose import Limits, decompose
        >>> from annealsubnet.problems import Problem
        >>> cliques = np.kron(np.eye(2), np.ones((6, 6)) - np.eye(6))
        >>> summarize(decompose(Problem(np.zeros(12), cliques), Limits(variables=6), seed=0))
        Summary(2 parts of up to 6 variables, 100.0% of the coupling inside, chains of up to 2 predicted)
    """
    found = found or {}
    limits = decomposition.limits
    degrees = kernels.inner_degrees(decomposition.inner_rows, decomposition.starts)
    rows: list[PartRow] = []
    for part in decomposition.parts(np.zeros(decomposition.problem.size)):
        number = len(rows)
        chains = predict_chains(part.rows, part.columns, topology=limits.topology)
        length, qubits = found.get(number, (None, None))
        ranged = limits.coupler_range is not None or limits.field_range is not None
        rows.append(
            PartRow(
                number,
                part.size,
                int(degrees[number]),
                part.values.size // 2,
                chains.treewidth,
                chains.length,
                chains.qubits,
                length,
                qubits,
                scale_of(part.problem, limits) if ranged else 1.0,
            )
        )
    return Summary(tuple(rows), share_inside(decomposition), int(decomposition.colors.max(initial=-1)) + 1)


def share_inside(decomposition: Decomposition) -> float:
    """Share of the coupling weight that lies inside some part; couplings that several parts hold count once."""
    couplings = compressed(decomposition.problem)
    total = float(np.abs(couplings.values).sum())
    if total == 0:
        return 1.0
    if decomposition.members.size <= decomposition.problem.size:
        return float(np.abs(decomposition.inner_values).sum()) / total
    size = decomposition.problem.size
    first = np.repeat(decomposition.members, np.diff(decomposition.inner_rows))
    begins = np.repeat(np.repeat(decomposition.starts[:-1], decomposition.sizes), np.diff(decomposition.inner_rows))
    second = decomposition.members[begins + decomposition.inner_columns]
    _, once = np.unique(first * size + second, return_index=True)
    return float(np.abs(decomposition.inner_values[once]).sum()) / total
