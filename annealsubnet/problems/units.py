"""Neurons and heads of one site: the error that keeping only some of them makes in the layers that read them.

A consumer returns z = Σ_u c_u + bias with c_u = Σ_{i of u} a_i W_i the contribution of unit u. With y what it should return,

    E(x) = E‖Σ_u x_u c_u − (y − bias)‖² = Σ_uv x_u x_v Q_uv − 2 Σ_u x_u l_u + const,
    Q = sum over the inputs of u and v of H ∘ W Wᵀ,        l = sum over the inputs of u of C' ∘ W,    C' = E[a (y − bias)ᵀ]

which is exact: the error *before* any refit. If y is the consumer's own output, E(x) = (1 − x)ᵀ Q (1 − x).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from annealsubnet.networks import Layer, Site
from annealsubnet.problems.problem import Problem
from annealsubnet.statistics.moments import Regression


def site_problem(
    site: Site,
    regressions: Mapping[str, Regression],
    layers: Mapping[str, Layer],
    params: Mapping[str, Any],
    *,
    num_kept: int | None = None,
    importance: Mapping[str, Float[np.ndarray, "groups outputs"]] | None = None,
) -> Problem:
    """The reconstruction error of a site's consumers, before any refit, as a problem over the site's units.

    Args:
        site: whose units are the variables, labeled `"<site>:<number>"`.
        regressions: of each consumer, from all its inputs to what it should return.
        layers: of the network.
        params: weights by which the consumers read their inputs.
        num_kept: how many units an answer keeps.
        importance: what a unit of squared error in each output costs (the loss's curvature there); by default each consumer's
            error counts relative to the energy of its targets.

    Example:
        See `tests/test_problems.py`, where the energy is compared with its definition on a network's own activations.
    """
    couplings = np.zeros((site.size, site.size))
    linear = np.zeros(site.size)
    offset = 0.0
    for name, unit_of_input in site.consumers.items():
        layer, regression = layers[name], regressions[name]
        weights = layer.weight_matrix(params)
        scale = relative_importance(regression) if importance is None else importance[name]
        scaled = weights * scale[:, None, :]
        left = regression.without(layer.bias_matrix(params))
        for group in range(layer.groups):
            mine = unit_of_input[group] >= 0
            units = unit_of_input[group][mine]
            target, energy = _residual_target(left, weights, group, ~mine)
            product = regression.gram[group][np.ix_(mine, mine)] * (scaled[group][mine] @ weights[group][mine].T)
            couplings += _group_rows(_group_rows(product, units, site.size).T, units, site.size)
            linear -= 2 * _group_rows((target[mine] * scaled[group][mine]).sum(1), units, site.size)
            offset += float(energy @ scale[group])
    couplings = couplings + couplings.T  # ½ xᵀ J x over both orders of each pair
    linear = linear + np.diag(couplings) / 2
    np.fill_diagonal(couplings, 0.0)
    labels = tuple(f"{site.name}:{unit}" for unit in range(site.size))
    return Problem(linear, couplings, offset, num_kept, labels)


def relative_importance(regression: Regression) -> Float[np.ndarray, "groups outputs"]:
    """One over the energy of all targets, for each output: errors become shares of what is to be explained."""
    total = float(regression.centered().target_energy.sum())
    return np.full(regression.target_energy.shape, 1.0 / total if total > 0 else 1.0)


def _residual_target(left: Regression, weights: np.ndarray, group: int, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E[a t] and E[t²] for t = y − bias − what the inputs of other sites contribute."""
    fixed = weights[group] * others[:, None]
    target = left.cross[group] - left.gram[group] @ fixed
    return target, left.target_energy[group] - (fixed * (left.cross[group] + target)).sum(0)


def _group_rows(rows: np.ndarray, units: np.ndarray, size: int) -> np.ndarray:
    """Sum rows that belong to the same unit."""
    total = np.zeros((size, *rows.shape[1:]))
    np.add.at(total, units, rows)
    return total
