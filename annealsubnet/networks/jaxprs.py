"""Reading and running the equations of a jaxpr."""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, jaxprs_in_params

from annealsubnet.networks.taps import tap_in_p

# Equations that run their jaxpr any number of times, or not at all.
_LOOPS = ("scan", "while", "cond")
_DRAWS = ("random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform")


def bind(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The results of one equation."""
    bound = equation.primitive.get_bind_params(equation.params)
    subfuns, params = bound if isinstance(bound, tuple) else ([], bound)  # jax before 0.10 splits functions off
    results = equation.primitive.bind(*subfuns, *operands, **params)
    return list(results) if equation.primitive.multiple_results else [results]


def subprogram(equation: Any) -> ClosedJaxpr | None:
    """The jaxpr that an equation runs exactly once (jit, remat, custom derivatives), else None."""
    if equation.primitive.name in _LOOPS:
        return None
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    if isinstance(inner, Jaxpr):
        return ClosedJaxpr(inner, ())
    return inner if isinstance(inner, ClosedJaxpr) else None


def draws_in(jaxpr: Any) -> bool:
    """Whether random numbers are drawn anywhere inside a jaxpr."""
    equations = getattr(jaxpr, "jaxpr", jaxpr).eqns
    return any(
        equation.primitive.name in _DRAWS or any(draws_in(inner) for inner in jaxprs_in_params(equation.params))
        for equation in equations
    )


def layers_in(jaxpr: Any) -> list[str]:
    """Names of all layers tapped anywhere inside a jaxpr."""
    names: list[str] = []
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive is tap_in_p:
            names.append(equation.params["spec"].name)
        for inner in jaxprs_in_params(equation.params):
            names += layers_in(inner)
    return names
