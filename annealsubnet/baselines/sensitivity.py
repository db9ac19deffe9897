"""Sensitivity pruning: units whose removal changes the loss least, as a Taylor series of the loss at the network sees it.

With a gate g_u = 1 on each unit (for a weight w the gate's derivatives are w ∂loss/∂w and w² ∂²loss/∂w²), removing u changes
the loss by −c_u + ½ G_uu + …, c = ∂loss/∂g. The methods differ in what they take of it and how they estimate that.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from annealsubnet.baselines.selection import Result, comparable, from_scores, sum_over_units, traced_on_data
from annealsubnet.budgets import Keep, budget_of
from annealsubnet.losses import Loss, check_loss, cross_entropy
from annealsubnet.networks import Network
from annealsubnet.statistics.gates import GateGradients, by_site, gate_curvature, gate_gradients
from annealsubnet.statistics.gradients import gradient_products, kernel_curvature, kernel_gradients, mean_gradients


def taylor(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    form: str = "absolute",
) -> Result:
    """Keep the units with the largest first-order change of the loss.

        "absolute":  score_u = E_n |c_nu|          "squared":  score_u = (E_n c_nu)²

    with c_nu = ∂loss_n/∂g_u; for a weight c_nu = w ∂loss_n/∂w. The absolute form takes each example by itself, so it does not
    vanish where the mean gradient does, at the end of training. As in its paper, scores of neurons are divided by their layer's
    ℓ2 norm, which makes layers comparable.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`.
        form: of 2017 ("absolute") or of 2019 ("squared"; ranks like `snip`).

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: for another form, missing labels, and as `annealsubnet.budgets.budget_of`.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, inputs, tap: tap.dense("out", inputs), {"out": {"kernel": jnp.eye(2)}})
        >>> mask, pruned = taylor(model, [(np.array([[3.0, 0.0]], np.float32), np.array([0]))], keep=1)
        >>> mask.kept["out"].tolist()
        [[True, False], [False, False]]

    References:
        Molchanov, Tyree, Karras, Aila, Kautz, "Pruning Convolutional Neural Networks for Resource Efficient Inference",
        ICLR 2017, section 2.2, "Taylor expansion" (averaged over a feature map there; a constant factor within a layer);
        Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural Network Pruning", CVPR 2019, section 3.1.
    """
    if form not in ("absolute", "squared"):
        raise ValueError(f"form is 'absolute' or 'squared', not {form!r}.")

    def by_weight(network: Network) -> Mapping[str, np.ndarray]:
        if form == "squared":
            return _times_kernels(network, mean_gradients(network, batches or (), loss=loss), lambda w, g: (w * g) ** 2)
        moments = kernel_gradients(network, batches or (), loss=loss)
        return _times_kernels(network, moments.mean_absolute, lambda w, g: np.abs(w) * g)

    def by_gate(gates: GateGradients) -> Mapping[str, np.ndarray]:
        if form == "squared":
            return by_site(gates.places, gates.mean**2)
        return comparable(by_site(gates.places, gates.mean_absolute))

    network = traced_on_data(model, batches, "taylor")
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    if unit == "weight":
        return from_scores(model, network, by_weight(network), budget)
    gates = gate_gradients(network, batches or (), unit=unit, sites=budget.selected, loss=loss)
    return from_scores(model, network, by_gate(gates), budget)


def fisher(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
) -> Result:
    """Keep the units with the largest second-order change of the loss, its Hessian taken as the diagonal Fisher information.

        score_u = ½ E_n c_nu²,    for a weight  ½ w² E_n (∂loss_n/∂w)²

    The Fisher information is the empirical one, of single examples with their own labels, and exact for every kind of layer.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: for missing labels, and as `annealsubnet.budgets.budget_of`.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, inputs, tap: tap.dense("out", inputs), {"out": {"kernel": jnp.eye(2)}})
        >>> fisher(model, [(np.array([[0.0, 3.0]], np.float32), np.array([0]))], keep=1)[0].kept["out"].tolist()
        [[False, False], [False, True]]

    References:
        Theis, Korshunova, Tejani, Huszár, "Faster gaze prediction with dense networks and Fisher pruning", 2018
        (arXiv:1801.05787), section 3.
    """
    network = traced_on_data(model, batches, "fisher")
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    if unit == "weight":
        second = kernel_gradients(network, batches or (), loss=loss).second
        return from_scores(model, network, _times_kernels(network, second, lambda w, h: 0.5 * w**2 * h), budget)
    gates = gate_gradients(network, batches or (), unit=unit, sites=budget.selected, loss=loss)
    return from_scores(model, network, by_site(gates.places, 0.5 * gates.second), budget)


def obd(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
) -> Result:
    """Keep the units with the largest saliency of Optimal Brain Damage.

        score_u = ½ G_uu,    for a weight  ½ w² h_ww

    with G and h the diagonal of the Gauss-Newton Hessian (the paper's Levenberg-Marquardt approximation), here exact for every
    kind of layer instead of propagated from layer to layer. Labels are not read.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: as `annealsubnet.budgets.budget_of`.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, inputs, tap: tap.dense("out", inputs), {"out": {"kernel": jnp.eye(2)}})
        >>> obd(model, [np.array([[1.0, 3.0]], np.float32)], keep=1)[0].kept["out"].tolist()
        [[False, False], [False, True]]

    References:
        LeCun, Denker, Solla, "Optimal Brain Damage", NeurIPS 1989, section 2: the saliency h_kk u_k² / 2 of its recipe.
    """
    check_loss(loss)
    network = traced_on_data(model, batches, "obd")
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    if unit == "weight":
        diagonal = kernel_curvature(network, batches or (), loss=loss)
        return from_scores(model, network, _times_kernels(network, diagonal, lambda w, h: 0.5 * w**2 * h), budget)
    gates = gate_curvature(network, batches or (), unit=unit, sites=budget.selected, loss=loss)
    return from_scores(model, network, by_site(gates.places, 0.5 * gates.curvature), budget)


def snip(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
) -> Result:
    """Keep the units with the largest connection sensitivity.

        score_u = |E_n c_nu|,    for a weight  |w ∂loss/∂w|

    (the paper divides by the sum over all units, which ranks alike). Made for networks before training.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`; the paper reads one batch.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: for missing labels, and as `annealsubnet.budgets.budget_of`.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, inputs, tap: tap.dense("out", inputs), {"out": {"kernel": jnp.eye(2)}})
        >>> snip(model, [(np.array([[0.0, 3.0]], np.float32), np.array([0]))], keep=1)[0].kept["out"].tolist()
        [[False, False], [False, True]]

    References:
        Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, section 4.1.
    """
    network = traced_on_data(model, batches, "snip")
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    if unit == "weight":
        mean = mean_gradients(network, batches or (), loss=loss)
        return from_scores(model, network, _times_kernels(network, mean, lambda w, g: np.abs(w * g)), budget)
    gates = gate_gradients(network, batches or (), unit=unit, sites=budget.selected, loss=loss)
    return from_scores(model, network, by_site(gates.places, np.abs(gates.mean)), budget)


def grasp(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    temperature: float = 200.0,
) -> Result:
    """Keep the units whose removal lowers the norm of the gradient most ("gradient signal preservation").

        score = w ∘ (H g),    g and H the gradient and Hessian of the mean loss in all kernels

    which is the paper's −w ∘ (H g) with the sign turned, so that large is kept. Both are of all the data, in two passes. A
    neuron's score is the sum over the kernel that feeds it, the first-order change by removing these weights together; a head's
    over its four projections. Made for networks before training.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`.
        temperature: outputs are divided by it before the loss, as in the paper.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: for missing labels, and as `annealsubnet.budgets.budget_of`.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, inputs, tap: tap.dense("out", inputs), {"out": {"kernel": jnp.eye(2)}})
        >>> grasp(model, [(np.array([[0.0, 3.0]], np.float32), np.array([0]))], keep=1)[0].kept["out"].tolist()
        [[False, False], [False, True]]

    References:
        Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020, section 4,
        algorithm 1; the temperature is that of its code.
    """
    check_loss(loss)
    network = traced_on_data(model, batches, "grasp")
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    soft = _softened(loss, temperature)
    gradients = mean_gradients(network, batches or (), loss=soft)
    products = gradient_products(network, batches or (), gradients, loss=soft)
    scores = _times_kernels(network, products, lambda w, product: w * product)
    if unit != "weight":
        sites = network.sites(unit)
        scores = {name: sum_over_units(network, sites[name], scores) for name in budget.selected}
    return from_scores(model, network, scores, budget)


@cache
def _softened(loss: Loss, temperature: float) -> Loss:
    """The loss of outputs divided by a temperature; the same object each time, so that its programs are compiled once."""
    return replace(loss, value=lambda outputs, labels: loss.value(outputs / temperature, labels))


def _times_kernels(
    network: Network, values: Mapping[str, np.ndarray], function: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
    """`function(kernel, value)` for every layer, in float64."""
    kernels = {name: np.asarray(network.params[layer.kernel], np.float64) for name, layer in network.layers.items()}
    return {name: function(kernels[name], values[name]) for name in values}
