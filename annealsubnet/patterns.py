"""Patterns: what hardware asks of the zeros of a kernel, written as one word.

The kernel of a layer is read as a matrix `[fan_in, neurons]`. Two kinds of pattern:

    "N:M"   of every M consecutive inputs of each neuron, N stay (2:4 is what sparse tensor cores multiply)
    "BxC"   weights stay or go in blocks of B consecutive inputs by C consecutive neurons; how many blocks, `keep` says

Under either, every neuron of a layer keeps equally many weights.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from annealsubnet.budgets import Budget, ExcludeError, Keep, budget_of
from annealsubnet.networks import Layer


@dataclass(frozen=True)
class Pattern:
    """A pattern, read.

    Attributes:
        text: as it was written.
        inputs: M or B, consecutive inputs of a group or block.
        stays: N; 0 for blocks.
        neurons: C; 1 for groups.
    """

    text: str
    inputs: int
    stays: int = 0
    neurons: int = 1

    @property
    def is_block(self) -> bool:
        """Whether weights stay or go in blocks."""
        return self.stays == 0

    def check(self, layer: Layer) -> None:
        """Raise unless the pattern divides a layer's kernel.

        Raises:
            ValueError: with the layer's name, its size, and what to do.
        """
        neurons = layer.outputs // layer.groups
        for size, found, what in ((self.inputs, layer.fan_in, "inputs"), (self.neurons, neurons, "neurons")):
            if found % size:
                raise ExcludeError(
                    f"The pattern {self.text!r} does not divide the {found} {what} of layer {layer.name!r}; choose another "
                    "pattern, or leave the layer alone with {exclude}.",
                    layer.name,
                )


def parse_pattern(text: Any) -> Pattern:
    """A pattern from its word.

    Args:
        text: "N:M" with 0 < N < M, or "BxC".

    Raises:
        ValueError: for anything else.

    Example:
        >>> parse_pattern("2:4").stays, parse_pattern("4x8").neurons
        (2, 8)
    """
    words = text if isinstance(text, str) else ""
    if found := re.fullmatch(r"(\d+):(\d+)", words):
        stays, size = map(int, found.groups())
        if 0 < stays < size:
            return Pattern(text, size, stays)
    if found := re.fullmatch(r"(\d+)x(\d+)", words):
        inputs, neurons = map(int, found.groups())
        if inputs > 0 and neurons > 0:
            return Pattern(text, inputs, 0, neurons)
    raise ValueError(
        f"pattern is {text!r}; give 'N:M' with 0 < N < M, such as '2:4' (2 of every 4 inputs stay), or 'BxC', such as '4x1' "
        "(blocks of 4 inputs by 1 neuron)."
    )


def pattern_budget(
    network: Any, pattern: str | None, *, keep: Keep, unit: str, scope: str, exclude: Iterable[str] = ()
) -> Budget:
    """`budget_of`, with a pattern or without.

    Args:
        network: a `Network`; without a pattern whatever `budget_of` takes.
        pattern: "N:M", "BxC" or None.
        keep: as in `budget_of`; None for "N:M", which says it itself; for "BxC" a share of each neuron's inputs or their
            number, rounded half up to whole blocks, at least one.
        unit: "weight" if there is a pattern.
        scope: as in `budget_of`; with a pattern every neuron of a layer keeps equally many, whatever it says.
        exclude: layers that lose no weight.

    Raises:
        ValueError: as `budget_of` and `parse_pattern`; or for a pattern of neurons or heads, one that does not divide a layer,
            or a `keep` beside "N:M".
    """
    if pattern is None:
        if keep is None:
            raise ValueError("keep is missing: say how much stays, as a fraction or a count.")
        return budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    parsed = parse_pattern(pattern)
    if unit != "weight":
        raise ValueError(f"pattern={pattern!r} is for weights; leave it out for {unit}s.")
    if not parsed.is_block and keep is not None:
        raise ValueError(
            f"keep={keep!r} and pattern={pattern!r} are both given; the pattern says how many stay: leave keep out."
        )
    if parsed.is_block and keep is None:
        raise ValueError(f"keep is missing: pattern={pattern!r} says in what blocks weights stay, and keep how many.")
    # All, where the pattern says how many: a share of it may be none of a layer's inputs, which is then to be refused by name.
    budget = budget_of(network, keep=keep if parsed.is_block else 1.0, unit=unit, scope="neuron", exclude=exclude)
    counts = {}
    for name, layer in budget.layers.items():
        parsed.check(layer)
        blocks = layer.fan_in // parsed.inputs
        whole = max((2 * budget.counts[name] + parsed.inputs) // (2 * parsed.inputs), 1) * parsed.inputs
        counts[name] = whole if parsed.is_block else blocks * parsed.stays
    total = sum(counts[name] * layer.outputs for name, layer in budget.layers.items())
    return Budget(unit, "neuron", budget.shapes, budget.selected, counts, total, budget.layers)
