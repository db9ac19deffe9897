"""Blocks: sets of variables whose joint distribution, given all others, can be summed exactly, and the order to do it in.

With the variables outside a block held, the tables that touch it are tables over its own variables. They are eliminated one
after the other as in `exact.solve_tree`; what is left to remember of a variable is a table over its *bag*, the variables that
it is still coupled to. A block is grown from a variable by always adding the one with the most neighbors in the block, as long
as no bag holds more than `width` variables when they are eliminated in reverse. On a ring this gives a run of consecutive
variables with bags of K; where windows are random, as large a piece as the width allows.

References:
    F. Hamze, N. de Freitas, From fields to trees, UAI 2004 (blocks of width one).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from annealsubnet.landscapes.landscape import Landscape


@dataclass(frozen=True, repr=False)
class Blocks:
    """Blocks one behind the other, each a run of steps that eliminate one variable.

    Factors of a step are the tables that it is the first to touch and the messages of earlier steps. Setting Σ_b x_b 2^b of
    the step's joint variables (its bag, then its own variable) reads entry base + Σ_b x_b `shifts[b]` of a factor; the base of
    a table comes from the variables outside the block.

    Attributes:
        starts: first step of each block; one more than there are blocks.
        variables: which one each step eliminates.
        bags: where each step's bag begins in `members`.
        members: variables of all bags.
        messages: where each step's message begins among those of its block.
        factors: where each step's factors begin; one more than there are steps.
        sources: the window of a factor; or −1 − m for the message that begins at m.
        inside: of a window, the bits that lie in the block.
        places: where a factor's shifts begin in `shifts`.
        shifts: see above.
        width: the largest bag.
    """

    starts: Int[np.ndarray, "blocks_and_one"]
    variables: Int[np.ndarray, "steps"]
    bags: Int[np.ndarray, "steps_and_one"]
    members: Int[np.ndarray, "all_members"]
    messages: Int[np.ndarray, "steps"]
    factors: Int[np.ndarray, "steps_and_one"]
    sources: Int[np.ndarray, "all_factors"]
    inside: Int[np.ndarray, "all_factors"]
    places: Int[np.ndarray, "all_factors"]
    shifts: Int[np.ndarray, "all_shifts"]
    width: int

    def __repr__(self) -> str:
        count = len(self.starts) - 1
        return f"Blocks({count} blocks of {len(self.variables) / max(count, 1):.1f} variables, width {self.width})"

    def of(self, block: int) -> Int[np.ndarray, "variables"]:
        """The variables of one block."""
        return self.variables[self.starts[block] : self.starts[block + 1]]


def grow_blocks(landscape: Landscape, *, size: int, width: int, cover: int, seed: int) -> Blocks:
    """Blocks that hold every variable at least `cover` times.

    Args:
        landscape: whose tables couple the variables.
        size: most variables in a block.
        width: most variables in a bag; a step costs 2^(width + 1).
        cover: how often every variable must be in a block.
        seed: of starts and ties.

    Example:
        >>> from annealsubnet.landscapes.landscape import random_landscape
        >>> blocks = grow_blocks(random_landscape(64, 4, seed=0), size=16, width=4, cover=2, seed=0)
        >>> blocks.width, bool(np.bincount(np.concatenate([blocks.of(b) for b in range(len(blocks.starts) - 1)])).min() >= 2)
        (4, True)
    """
    if size < 1 or width < 0 or cover < 1:
        raise ValueError(f"Blocks need a size and a cover of 1 at least and a width of 0; they are {size}, {cover}, {width}.")
    rng = np.random.default_rng(seed)
    adjacent = _adjacency(landscape)
    holders: list[list[int]] = [[] for _ in range(landscape.num_variables)]
    for number, window in enumerate(landscape.windows.tolist()):
        for member in window:
            holders[member].append(number)
    covered = np.zeros(landscape.num_variables, np.int64)
    steps = _Steps(landscape.windows.tolist(), holders)
    while covered.size and covered.min() < cover:
        start = int(rng.choice(np.flatnonzero(covered == covered.min())))
        grown = _grow(adjacent, start, size, width, rng.random(landscape.num_variables).tolist())
        covered[grown] += 1
        steps.add(grown[::-1], _bags(adjacent, grown))
    return steps.blocks()


def _adjacency(landscape: Landscape) -> list[int]:
    """For each variable, those that it shares a window with, as the bits of an integer."""
    adjacent = [0] * landscape.num_variables
    for window in landscape.windows.tolist():
        mask = sum(1 << member for member in window)
        for member in window:
            adjacent[member] |= mask & ~(1 << member)
    return adjacent


def _bits(mask: int) -> list[int]:
    """Which bits are set, ascending."""
    found = []
    while mask:
        lowest = mask & -mask
        found.append(lowest.bit_length() - 1)
        mask ^= lowest
    return found


def _bags(adjacent: list[int], grown: list[int]) -> list[int]:
    """The bag of each variable (a set of bits) when the last grown is eliminated first; in that order."""
    left = sum(1 << variable for variable in grown)
    near = {variable: adjacent[variable] & left for variable in grown}
    bags = []
    for variable in reversed(grown):
        left ^= 1 << variable
        bag = near[variable] & left
        for other in _bits(bag):
            near[other] |= bag
        bags.append(bag)
    return bags


def _grow(adjacent: list[int], start: int, size: int, width: int, ties: list[float]) -> list[int]:
    """Variables in the order in which they join a block."""
    grown, beside = [start], dict.fromkeys(_bits(adjacent[start]), 1)
    inside = 1 << start
    while beside and len(grown) < size:
        chosen = max(beside, key=lambda one: (beside[one], ties[one]))
        del beside[chosen]
        if max(bag.bit_count() for bag in _bags(adjacent, [*grown, chosen])) <= width:
            grown.append(chosen)
            inside |= 1 << chosen
            for neighbor in _bits(adjacent[chosen] & ~inside):
                beside[neighbor] = beside.get(neighbor, 0) + 1
        else:
            # A bag never shrinks when others join, so what did not fit once never will.
            inside |= 1 << chosen
    return grown


class _Steps:
    """The lists of `Blocks` as they grow."""

    def __init__(self, windows: list[list[int]], holders: list[list[int]]) -> None:
        self.windows, self.holders = windows, holders
        self.starts, self.bags, self.factors = [0], [0], [0]
        self.variables: list[int] = []
        self.members: list[int] = []
        self.messages: list[int] = []
        self.sources: list[int] = []
        self.inside: list[int] = []
        self.places: list[int] = []
        self.shifts: list[int] = []
        self.width = 0

    def add(self, order: list[int], bags: list[int]) -> None:
        """One block, its variables in the order of elimination with their bags."""
        turn = {variable: place for place, variable in enumerate(order)}
        left: list[list[tuple[int, list[int]]]] = [[] for _ in order]
        done: set[int] = set()
        begin = 0
        for place, (variable, mask) in enumerate(zip(order, bags, strict=True)):
            bag = _bits(mask)
            joint = [*bag, variable]
            for window in self.holders[variable]:
                if window not in done:
                    done.add(window)
                    bits = {member: 1 << bit for bit, member in enumerate(self.windows[window]) if member in turn}
                    self._factor(window, sum(bits.values()), [bits.get(member, 0) for member in joint])
            for source, members in left[place]:
                bits = {member: 1 << bit for bit, member in enumerate(members)}
                self._factor(-1 - source, 0, [bits.get(member, 0) for member in joint])
            if bag:
                left[min(turn[member] for member in bag)].append((begin, bag))
            self.variables.append(variable)
            self.members += bag
            self.bags.append(len(self.members))
            self.messages.append(begin)
            self.factors.append(len(self.sources))
            self.width = max(self.width, len(bag))
            begin += 1 << len(bag)
        self.starts.append(len(self.variables))

    def _factor(self, source: int, inside: int, shifts: list[int]) -> None:
        self.sources.append(source)
        self.inside.append(inside)
        self.places.append(len(self.shifts))
        self.shifts += shifts

    def blocks(self) -> Blocks:
        """The lists as arrays."""
        names = ("starts", "variables", "bags", "members", "messages", "factors", "sources", "inside", "places", "shifts")
        return Blocks(**{name: np.array(getattr(self, name), np.int64) for name in names}, width=self.width)
