"""Annealing with moves on the tables: no auxiliary variables, no penalties.

A single flip changes K + 1 tables of random numbers at once, so that flips alone are soon stuck. A *block* move draws some
thirty variables at once from their Boltzmann distribution given the others (`block_kernel`), by a forward pass that sums them
out one after the other and a backward pass that draws them. It satisfies detailed balance for blocks of any size, crosses every
barrier within its block, and at temperature zero sets the block to its optimum. It reads about 2^(width + 1) table entries a
variable, where the width is how many others of its block a variable is coupled to when its turn comes.

Only differences of entries matter, against each other and against the temperature: the kernels get tables whose smallest entry
is 0 and the largest of all about 1, in units of a power of two, so that tables times another give the same states.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.arguments import check_whole
from annealsubnet.landscapes.block_kernel import anneal_reads
from annealsubnet.landscapes.blocks import Blocks, grow_blocks
from annealsubnet.landscapes.landscape import Landscape
from annealsubnet.solvers.running import Stops, keys_for, run_reads

# Blocks that each variable is in: their ends lie in different places, so that no barrier sits at the end of all of them.
_COVER = 4
# A temperature from which blocks are drawn nearly at random, and one at which they are nearly optima, in units of the
# standard deviation of what a flip changes.
_HOT, _COLD = 1.0, 5e-3
_SWEEPS = {"blocks": 100, "flips": 2000}


@dataclass(frozen=True)
class Optimum:
    """What annealing found.

    Attributes:
        states: the state of every read.
        energies: their energies.
    """

    states: Bool[np.ndarray, "reads variables"]
    energies: Float[np.ndarray, "reads"]

    @property
    def best(self) -> Bool[np.ndarray, "variables"]:
        """The state of lowest energy."""
        return self.states[int(self.energies.argmin())]

    def __repr__(self) -> str:
        return f"Optimum({len(self.energies)} reads, best energy {self.energies.min():.6g})"


def anneal(
    landscape: Landscape,
    *,
    moves: Literal["blocks", "flips"] = "blocks",
    block_size: int = 32,
    width: int | None = None,
    temperatures: tuple[float, float] | None = None,
    num_reads: int = 8,
    num_sweeps: int | None = None,
    state: Literal["best", "last"] = "best",
    seed: int,
    num_threads: int | None = None,
) -> Optimum:
    """Simulated annealing of a landscape from random states.

    Args:
        landscape: any.
        moves: "blocks" draws whole blocks from their distribution given the rest; "flips" proposes single flips by Metropolis'
            rule.
        block_size: most variables in a block.
        width: most variables that one of a block may be coupled to when its turn comes; by default as many as a window has
            others, and 6 at least.
        temperatures: the first and the last, between which every read cools geometrically; from the tables if None. (0, 0)
            is descent by the same moves.
        num_reads: independent runs.
        num_sweeps: moves of as many variables as there are, in a run; by default 100 of blocks and 2000 of flips.
        state: "best" for the best state of each read, followed by a descent; "last" for its last, a draw from the Boltzmann
            distribution if it was cooled slowly enough (or not at all).
        seed: the same seed gives the same answer, for any number of threads.
        num_threads: by default one a processor where that pays.

    Raises:
        ValueError: for moves or a state that do not exist, and numbers out of range.
        TypeError: for a seed that is no whole number.

    Example:
        >>> from annealsubnet.landscapes import random_landscape, solve_ring
        >>> land = random_landscape(64, 5, seed=0)
        >>> bool(anneal(land, seed=0).energies.min() < solve_ring(land)[1] + 1e-9)
        True

    References:
        F. Hamze, N. de Freitas, From fields to trees, UAI 2004: blocks of trees instead of single variables.
    """
    if moves not in _SWEEPS or state not in ("best", "last"):
        raise ValueError(f'moves are "blocks" or "flips", the state "best" or "last"; they are {moves!r} and {state!r}.')
    sweeps = _SWEEPS[moves] if num_sweeps is None else num_sweeps
    seed = check_whole("seed", seed, 0)
    if num_reads < 1 or sweeps < 0:
        raise ValueError(f"num_reads must be at least 1 and num_sweeps 0; they are {num_reads} and {sweeps}.")
    count, members = landscape.windows.shape
    widest = max(members - 1, 6) if width is None else width
    size = block_size if moves == "blocks" else 1
    blocks = grow_blocks(landscape, size=size, width=widest, cover=_COVER if size > 1 else 1, seed=seed)
    length = sweeps if moves == "flips" else _moves(blocks, landscape.num_variables, sweeps)
    descent = temperatures is not None and tuple(temperatures) == (0, 0)
    scaled, exponent = _in_units(landscape)
    schedule = np.zeros(length) if descent else np.geomspace(*_range(scaled, temperatures, exponent), length)
    land, plan = _arrays(scaled), _plan(blocks)
    states = np.zeros((num_reads, landscape.num_variables), np.bool_)
    keys = keys_for(seed, num_reads)

    def kernel(begin: int, end: int, stop: np.ndarray) -> None:
        anneal_reads(land, plan, moves == "blocks", schedule, state == "best", keys, begin, end, states)

    work = members if moves == "flips" else 2 ** (blocks.width + 1)
    proposals = float(landscape.num_variables) * num_reads * sweeps * work
    run_reads(kernel, num_reads, num_threads=num_threads, proposals=proposals, stops=Stops())
    return Optimum(states, landscape.energy(states))


def _moves(blocks: Blocks, num_variables: int, num_sweeps: int) -> int:
    """How many blocks hold `num_sweeps` times as many variables as there are."""
    count = len(blocks.starts) - 1
    return round(num_sweeps * num_variables * count / max(len(blocks.variables), 1))


def _in_units(landscape: Landscape) -> tuple[Landscape, int]:
    """The same differences in units of 2^exponent, the largest in a table from 1/2 to 1; and that exponent."""
    tables = np.asarray(landscape.tables, np.float64)
    tables = tables - tables.min(axis=1, keepdims=True)
    exponent = int(np.frexp(tables.max(initial=0.0))[1])
    return replace(landscape, tables=np.ldexp(tables, -exponent)), exponent


def _range(landscape: Landscape, temperatures: tuple[float, float] | None, exponent: int) -> tuple[float, float]:
    """The first and the last temperature, in units of 2^exponent as the landscape is."""
    if temperatures is None:
        # A flip changes all tables that hold a variable, each by the difference of two entries.
        held = landscape.windows.size / max(landscape.num_variables, 1)
        scale = max(float(np.sqrt(2.0 * held * np.mean(landscape.tables.var(axis=1)))), 1e-12) if held else 1.0
        return _HOT * scale, _COLD * scale
    hot, cold = temperatures
    if not (np.isfinite(hot) and hot >= cold > 0):
        raise ValueError(f"temperatures are (first, last) with first >= last > 0, or (0, 0); they are {temperatures}.")
    return float(np.ldexp(hot, -exponent)), float(np.ldexp(cold, -exponent))


def _arrays(landscape: Landscape) -> tuple[np.ndarray, ...]:
    """The landscape as the kernels take it."""
    members = landscape.windows.shape[1]
    flat = landscape.windows.ravel()
    order = np.argsort(flat, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=landscape.num_variables))])
    tables = np.ascontiguousarray(landscape.tables, dtype=np.float64)
    return tables, np.ascontiguousarray(landscape.windows, dtype=np.int64), starts, order // members, order % members


def _plan(blocks: Blocks) -> tuple[np.ndarray, ...]:
    """The blocks as the kernels take them."""
    return (
        blocks.starts, blocks.variables, blocks.bags, blocks.members, blocks.messages,
        blocks.factors, blocks.sources, blocks.inside, blocks.places, blocks.shifts,
    )  # fmt: skip
