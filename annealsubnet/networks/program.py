"""Programs: the equations of a network in a row, which can be run from any layer on.

A jaxpr nests: the bodies of `jit`, `remat` or custom derivatives are equations with a jaxpr of their own. Those that contain a
tap are inlined here, so that every tap has one place in the row, and what is known right before it is a list of values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from annealsubnet.networks.jaxprs import layers_in, subprogram
from annealsubnet.networks.taps import tap_in_p, tap_out_p

Atom = int | Literal
"""A value by its number, or as it stands in the program."""


@dataclass(frozen=True)
class Step:
    """One equation, with the numbers of the values that it reads and writes."""

    equation: Any
    reads: tuple[Atom, ...]
    writes: tuple[int, ...]

    @property
    def numbers(self) -> list[int]:
        """Which numbers it reads."""
        return [atom for atom in self.reads if isinstance(atom, int)]


@dataclass(frozen=True)
class Program:
    """Equations in a row.

    Attributes:
        steps: in the order of running.
        constants: values by number that the model closes over.
        params: numbers of the parameters, in the order of their sorted paths.
        inputs: the number of the network's inputs.
        input_size: how many numbers these are.
        outputs: what the network returns.
    """

    steps: list[Step]
    constants: dict[int, Any]
    params: list[int]
    inputs: int
    input_size: int
    outputs: Atom

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each layer (or norm) begins: the place of its first tap."""
        taps = [(place, step.equation) for place, step in enumerate(self.steps) if step.equation.primitive is tap_in_p]
        return {equation.params["spec"].name: place for place, equation in reversed(taps)}

    @cached_property
    def sizes(self) -> dict[int, int]:
        """How many numbers each value is that depends on the inputs."""
        found = {self.inputs: self.input_size}
        for step in self.steps:
            if not found.keys().isdisjoint(step.numbers):
                sizes = [variable.aval.size for variable in step.equation.outvars]
                found.update(zip(step.writes, sizes, strict=True))
        return found

    def known_before(self, place: int) -> list[int]:
        """The values that depend on the inputs, are written before a place and read from there on."""
        if place == 0:
            return [self.inputs]
        written = {self.inputs}.union(*(step.writes for step in self.steps[:place]))
        read_later = {self.outputs}.union(*(step.numbers for step in self.steps[place:]))
        return sorted(self.sizes.keys() & written & read_later)

    def run(
        self, values: dict[int, Any], handler: Callable[[Any, list[Any]], list[Any]], first: int = 0, end: int | None = None
    ) -> None:
        """Run the steps from one place to another, and those before it that no inputs enter; write results into `values`."""
        early = [step for step in self.steps[:first] if self.sizes.keys().isdisjoint(step.writes)]
        for step in [*early, *self.steps[first:end]]:
            results = handler(step.equation, [read(values, atom) for atom in step.reads])
            values.update(zip(step.writes, results, strict=True))


def read(values: dict[int, Any], atom: Atom) -> Any:
    """A value by its number, or as it stands."""
    return values[atom] if isinstance(atom, int) else atom.val


def in_a_row(closed: ClosedJaxpr) -> Program:
    """The program of a jaxpr whose last input is the network's and whose others are parameters."""
    numbers = count()
    steps: list[Step] = []
    constants: dict[int, Any] = {}

    def inline(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Atom]) -> list[Atom]:
        names: dict[Any, Atom] = dict(zip(jaxpr.invars, arguments, strict=True))
        for variable, value in zip(jaxpr.constvars, consts, strict=True):
            names[variable] = number = next(numbers)
            constants[number] = value

        def atoms(variables: Sequence[Any]) -> list[Atom]:
            return [variable if isinstance(variable, Literal) else names[variable] for variable in variables]

        for equation in jaxpr.eqns:
            inner = None if equation.primitive in (tap_in_p, tap_out_p) else subprogram(equation)
            results: Sequence[Atom]
            if inner is not None and layers_in(inner):
                results = inline(inner.jaxpr, inner.consts, atoms(equation.invars))
            else:
                written = tuple(next(numbers) for _ in equation.outvars)
                steps.append(Step(equation, tuple(atoms(equation.invars)), written))
                results = written
            names.update(zip(equation.outvars, results, strict=True))
        return atoms(jaxpr.outvars)

    *params, inputs = [next(numbers) for _ in closed.jaxpr.invars]
    (outputs,) = inline(closed.jaxpr, closed.consts, [*params, inputs])
    return Program(steps, constants, params, inputs, closed.jaxpr.invars[-1].aval.size, outputs)
