"""Refit: the kept weights of every layer by least squares, to the dense network's own outputs, without labels or gradients.

Layer by layer in the order of running, with a the layer's inputs in the pruned and so far refitted network and y the dense
network's outputs of the same layer,

    min_v E‖y − a_S · v − bias‖² + ρ‖v − v⁰‖²,        ρ = ridge × mean of the diagonal of H_SS

over the kept inputs S of each neuron. The ridge pulls towards the weights v⁰ that were there before, so that an input that
never varies keeps its weight. Where errors are weighed by the loss's curvature, E is that of each neuron's row
(`annealsubnet.statistics.row_curvature`).

Each layer then does its best for its own outputs. What that leaves of the network's distance from the dense one is lowered by
`fit_together`, in which all layers move at once.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from annealsubnet.arguments import check_weight, check_whole
from annealsubnet.batches import first_inputs, stream
from annealsubnet.evaluation import operations
from annealsubnet.fitting import fit_network, held_out
from annealsubnet.losses import Loss, check_loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import Layer, Network, Params, as_network
from annealsubnet.statistics.moments import Regression, targeted_regression
from annealsubnet.statistics.row_curvature import (
    Deltas,
    RowCurvature,
    as_rows,
    from_rows,
    layer_targets,
    obstacle,
    operations_by_rows,
    row_deltas,
    row_regression,
)
from annealsubnet.statistics.weight_distance import distance_to
from annealsubnet.stochastic_fit import TEMPERATURE, fit_by_batches

logger = logging.getLogger(__name__)

RIDGE = 1e-2
"""Default ridge, in units of the mean diagonal of H_SS; on MNIST validation images .001 to .03 differ by chance only."""
_MOST_WORK = 2e10
"""Operations of a pass over the batches beyond which some hundred of them, as `fit_network` takes, are too many."""
_STEPS = 8
"""Of a fit together, at most."""
_FITTED_ON = 6400
"""Examples whose gradients the fit by small batches then takes."""
_MOST_BY_ROWS = 1e13
"""Operations of moments by rows beyond which the errors of neurons are not weighed by curvature unless that is wanted."""


def refit(
    model: Any,
    mask: Mask,
    batches: Iterable[Any],
    *,
    ridge: float = RIDGE,
    curvature: bool | None = None,
    together: bool = False,
    loss: Loss = cross_entropy,
    seed: int = 0,
) -> Any:
    """Apply a mask and refit what it keeps, whoever made it.

    The refit begins at the first layer that lost a weight; every layer behind it is refitted, those that lost none too.

    Args:
        model: the dense network: an `nnx.Module`, what `from_linen` or `from_function` return, or a `Network`.
        mask: for this model.
        batches: calibration inputs or (inputs, labels); labels are not read. Two passes through both networks and,
            where what is known before a layer takes more than 1 GiB, one for every layer.
        ridge: see above; at least 0.
        curvature: whether errors are weighed by the loss's curvature, as in `annealsubnet.prune`; by default for masks of
            weights in networks with convolutions, where that is affordable.
        together: whether all kept weights are then fitted together to the dense network's outputs (`fit_together`).
        loss: whose curvature, and whose distance is lowered then.
        seed: of the batches, where that fit takes small ones.

    Returns:
        A new model in the form that came in, with the mask's zeros.

    Raises:
        ValueError: if the mask was made for another model, the batches or the ridge are bad, or `curvature=True` cannot be had.
        TypeError: for a seed that is no whole number.
    """
    check_loss(loss)
    seed = check_whole("seed", seed)
    network = as_network(model, first_inputs(batches))
    mask.check_network(network)
    layers = [name for name, layer in network.layers.items() if not kept_weights(network, mask, layer).all()]
    wanted = False if curvature is None and mask.unit != "weight" else curvature
    weighed = weighed_by(network, batches, layers, loss, wanted=wanted)
    params = refit_params(network, mask, batches, ridge=ridge, curvature=weighed)
    if together:
        params = fit_together(network, mask, batches, params=params, loss=loss, seed=seed)
    return network.model.export(params)


def fit_together(
    network: Network,
    mask: Mask,
    batches: Iterable[Any],
    *,
    params: Params,
    target_params: Params | None = None,
    loss: Loss,
    seed: int,
) -> Params:
    """Parameters whose kept weights are fitted together, unless that is no nearer on examples that were held out.

    By Levenberg-Marquardt (`annealsubnet.fitting`) where some hundred passes are affordable, else by Adam over small batches
    (`annealsubnet.stochastic_fit`).

    Args:
        network: traced.
        mask: what is kept.
        batches: calibration inputs, which are held in memory; labels are not read.
        params: where to start.
        target_params: of the network whose outputs are kept to; the dense one's by default.
        loss: whose curvature measures the outputs' change.
        seed: of the small batches.
    """
    target = network.params if target_params is None else target_params
    shared: dict[str, Any] = {"params": params, "target_params": target, "loss": loss}
    if not affordable(network, batches):
        logger.info("fitted by small batches, for a pass over all takes more than %.0e operations", _MOST_WORK)
        return fit_by_batches(network, mask, batches, examples=_FITTED_ON, seed=seed, **shared).params
    examples, held = held_out(batches)
    found = fit_network(network, mask, examples, steps=_STEPS, **shared).params
    before, after = (distance_to(network, held, params=each, target_params=target, loss=loss) for each in (params, found))
    logger.info("fit together: held-out distance %.4g to %.4g", before, after)
    return found if after < before else params


def affordable(network: Network, batches: Iterable[Any]) -> bool:
    """Whether some hundred passes over the batches are."""
    return operations(network) * sum(len(inputs) for inputs, _ in stream(batches)) <= _MOST_WORK


def weighed_by(
    network: Network, batches: Iterable[Any], layers: list[str], loss: Loss, *, wanted: bool | None, reason: str | None = None
) -> RowCurvature | None:
    """By which curvature the errors of neurons are weighed, or None.

    Args:
        network: traced.
        batches: on which.
        layers: in which weights went.
        loss: whose curvature.
        wanted: or not; None for where there are convolutions and it is affordable.
        reason: why it cannot be had, if one is known already.

    Raises:
        ValueError: if it is wanted and cannot be had.
    """
    if wanted is False or not layers:
        return None
    reason = reason or obstacle(network, layers)
    if wanted and reason is not None:
        raise ValueError(f"curvature=True cannot be had: {reason}.")
    if reason is not None:
        return None
    if wanted is None:
        if all(network.layers[name].window is None for name in layers):
            return None
        work = operations_by_rows(network, layers, sum(len(inputs) for inputs, _ in stream(batches)))
        if work > _MOST_BY_ROWS:
            logger.info("errors are not weighed by curvature: that takes %.1e operations, more than %.0e", work, _MOST_BY_ROWS)
            return None
    return RowCurvature(loss, TEMPERATURE)


def refit_params(
    network: Network, mask: Mask, batches: Iterable[Any], *, ridge: float = RIDGE, curvature: RowCurvature | None = None
) -> Params:
    """`refit` on a traced network, from and to flat parameters; errors are weighed where weights went, if by any curvature."""
    check_weight("ridge", ridge)
    params = mask.multiply(network.params)
    stays = {name: kept_weights(network, mask, layer) for name, layer in network.layers.items()}
    reduced = [name for name, kept in stays.items() if not kept.all()]
    if not reduced:
        return params
    names = list(network.layers)
    behind = names[names.index(reduced[0]) :]
    weighed = reduced if curvature is not None else []
    targets = layer_targets(network, batches, behind, weighed=weighed, target_params=network.params)
    deltas: Iterator[Deltas] = iter(())
    if curvature is not None:
        deltas = row_deltas(network, targets.batches, reduced, params=network.params, curvature=curvature)
    for name in behind:
        by_rows = next(deltas, None) if name in reduced else None
        if by_rows is None:
            regression = targeted_regression(network, name, targets.of(name, params))
        else:
            regression = row_regression(network, name, by_rows, targets, params=params).regression
        params = mask.multiply(refit_layer(network.layers[name], regression, stays[name], params, ridge=ridge))
    return params


def refit_layer(
    layer: Layer, regression: Regression, kept: Bool[np.ndarray, "groups fan_in outputs"], params: Params, *, ridge: float
) -> dict[str, Any]:
    """Parameters in which one layer's kept weights, and its bias, are refitted; of its own regression or that of its rows."""
    start = layer.weight_matrix(params)
    if regression.cross.shape == start.shape:
        weights, bias = least_squares(regression, kept, start, ridge=ridge)
    else:
        weights, bias = least_squares(regression, as_rows(kept), as_rows(start), ridge=ridge)
        weights = from_rows(weights, layer.groups)
    changed = {layer.kernel: layer.from_matrix(weights)}
    if layer.bias is not None:
        changed[layer.bias] = bias.reshape(params[layer.bias].shape)
    return {**params, **{path: jnp.asarray(value, params[path].dtype) for path, value in changed.items()}}


def kept_weights(network: Network, mask: Mask, layer: Layer) -> Bool[np.ndarray, "groups fan_in outputs"]:
    """Which weights of a layer are still there under a mask: those whose input and whose neuron both stay."""
    shape = (layer.groups, layer.fan_in, layer.outputs // layer.groups)
    keep = mask.keeps().get(layer.kernel)
    kept = np.ones(shape, bool) if keep is None else layer.matrix(np.broadcast_to(keep, layer.shape)).copy()
    if mask.unit != "weight":
        for name, units in mask.kept.items():
            unit_of_input = network.sites(mask.unit)[name].consumers.get(layer.name)
            if unit_of_input is not None:
                kept &= np.append(units, True)[unit_of_input][:, :, None]
    return kept


def least_squares(
    regression: Regression,
    kept: Bool[np.ndarray, "groups fan_in outputs"],
    start: Float[np.ndarray, "groups fan_in outputs"],
    *,
    ridge: float,
) -> tuple[Float[np.ndarray, "groups fan_in outputs"], Float[np.ndarray, "groups outputs"]]:
    """Weights on each output's own support, and the bias that goes with them.

    Args:
        regression: of the targets on the inputs.
        kept: the support.
        start: weights that the ridge pulls towards.
        ridge: in units of the mean diagonal of H_SS.

    Returns:
        Weights, zero off the support; biases, zero if the layer has none.
    """
    centered = regression.centered()
    weights = np.zeros_like(start)
    for group in range(len(kept)):
        gram, cross = centered.gram[group], centered.cross[group]
        # Neurons with the same support share one factorization.
        supports, member = np.unique(kept[group], axis=1, return_inverse=True)
        for number, support in enumerate(supports.T):
            rows, columns = np.flatnonzero(support), np.flatnonzero(member.ravel() == number)
            if rows.size:
                block, place = gram[np.ix_(rows, rows)], np.ix_(rows, columns)
                residual = cross[place] - block @ start[group][place]
                penalty = ridge * np.trace(block) / rows.size
                weights[group][place] = start[group][place] + _solve(block, residual, penalty)
    bias = np.zeros_like(regression.target_mean)
    if regression.with_bias:
        bias = regression.target_mean - np.einsum("gi,gio->go", regression.mean, weights)
    return weights, bias


def _solve(gram: np.ndarray, right: np.ndarray, penalty: float) -> np.ndarray:
    """(gram + penalty) x = right; inputs without any variation get 0 where the penalty cannot make the matrix definite."""
    damped = gram + penalty * np.eye(len(gram))
    try:
        return scipy.linalg.solve(damped, right, assume_a="pos", check_finite=False)
    except scipy.linalg.LinAlgError:
        return scipy.linalg.lstsq(damped, right, check_finite=False)[0]
