"""The quadratic model of the loss in the gates of all neurons, or heads, around a mask: within layers and across them.

Around the mask m, with g the gradient of the loss by the gates and G their Gauss-Newton matrix over all sites,

    E(x) = g · (x − m) + ½ γ (x − m)ᵀ G (x − m) + λ |x − m| + μ |x|

with λ the price of a flip and μ that of a kept unit. It is one problem of the whole network, annealed by exchanges that keep
the count of each layer (or of the network), or by flips where the count is free.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from annealsubnet.budgets import Budget
from annealsubnet.problems.gates import gate_problem
from annealsubnet.solvers import Annealer
from annealsubnet.statistics.gates import gate_curvature, gate_gradients
from annealsubnet.tickets.quadratic import Blocks, Terms
from annealsubnet.tickets.switches import Switches
from annealsubnet.tickets.thermal import ground_state

_READS = 4
_HIDDEN = 2.0**-23
_COOLED = 1.25  # The temperature is zero from four fifths of the sweeps on.


@dataclass(frozen=True)
class GateModel:
    """The model over the units of all sites, side by side.

    Attributes:
        places: where each site's units stand.
        kept: m.
        slopes: g.
        curvature: γ G, or its diagonal as a matrix.
        flip_price: λ.
        unit_price: μ.
    """

    places: Mapping[str, slice]
    kept: np.ndarray
    slopes: np.ndarray
    curvature: np.ndarray
    flip_price: float
    unit_price: float = 0.0

    def change(self, state: np.ndarray) -> tuple[float, float]:
        """The predicted change of the loss, without prices: to first order, and whole."""
        flips = state.astype(float) - self.kept
        linear = float(self.slopes @ flips)
        return linear, linear + 0.5 * float(flips @ self.curvature @ flips)

    def annealed(self, blocks: Blocks, budget: Budget | None, share: float, seed: int) -> np.ndarray:
        """The best state found from m; `share` of the temperature is left, and the count is free without a budget."""
        priced = self.slopes + self.flip_price * np.where(self.kept, -1.0, 1.0) + self.unit_price
        sizes = {name: place.stop - place.start for name, place in self.places.items()}
        largest = max(float(np.abs(self.curvature).max()), float(np.abs(priced).max()))
        # The annealer's float32 hides what is smaller, and warns of it: neurons that are nearly always silent have such.
        curvature = np.where(np.abs(self.curvature) > _HIDDEN * largest, self.curvature, 0.0)
        problem = gate_problem(sizes, curvature, gradient=priced, at=self.kept.astype(float))
        heat = share * blocks.temperature * float(np.sqrt(np.square(priced).mean()))
        falling = heat * np.maximum(0.0, 1 - _COOLED * np.arange(blocks.num_sweeps) / blocks.num_sweeps)
        with np.errstate(divide="ignore"):
            betas = np.where(falling > 0, 1 / falling, np.inf)
        names = np.array(problem.names)
        groups = None
        if budget is not None:
            groups = [(names[self.places[site]].tolist(), count) for site, count in budget.counts.items()]
            groups = groups or [(names.tolist(), budget.total)]
        start = self._start(budget)
        found = Annealer().sample(
            problem.to_bqm(), num_reads=_READS, beta_schedule=betas.tolist(), groups=groups, seed=seed,
            initial_states=(start.astype(np.int8)[None], names.tolist()), initial_states_generator="tile",
        )  # fmt: skip
        best = found.first.sample
        state = np.array([best[name] for name in names.tolist()], bool)
        return state if budget is None else self._with_units_everywhere(state)

    def _with_units_everywhere(self, state: np.ndarray) -> np.ndarray:
        """The state with the best unit of every site that lost all, in place of those that cost least elsewhere."""
        for place in self.places.values():
            if state[place].any():
                continue
            worth = -self.slopes - self.curvature @ (state.astype(float) - self.kept)
            spare = np.concatenate(
                [np.full(other.stop - other.start, state[other].sum() > 1) for other in self.places.values()]
            )
            closed = np.flatnonzero(state & spare)
            state = state.copy()
            state[closed[np.argmin(worth[closed])]] = False
            state[place.start + int(np.argmax(worth[place]))] = True
        return state

    def by_site(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """A state, cut into one array a site."""
        return {name: state[place] for name, place in self.places.items()}

    def _start(self, budget: Budget | None) -> np.ndarray:
        """m, or what is left of it to first order where fewer units are asked for."""
        if budget is None:
            return self.kept
        ranks = self.kept * (1.0 + 2 * np.abs(self.slopes).max()) - self.slopes
        return np.concatenate(list(ground_state(self.by_site(ranks), budget, None).values()))


def gate_model_around(
    switches: Switches,
    kept: Mapping[str, np.ndarray],
    batch: tuple[np.ndarray, np.ndarray],
    blocks: Blocks,
    terms: Terms,
) -> tuple[GateModel, dict[str, np.ndarray]]:
    """The model of all selected sites around a mask, and the averaged gradients by the gates; called like `models_around`."""
    network, loss, unit = switches.network, switches.loss, switches.budget.unit
    gates = {name: array.astype(float) for name, array in kept.items()}
    found = gate_gradients(network, [batch], unit=unit, sites=kept, loss=loss, gates=gates)
    form = "full" if blocks.coupling else "diagonal"
    curvature = gate_curvature(network, [batch], unit=unit, sites=kept, form=form, loss=loss, gates=gates).curvature
    slopes = terms.averaged({name: found.mean[place] for name, place in found.places.items()})
    matrix = curvature if blocks.coupling else np.diag(curvature)
    mask = np.concatenate([kept[name] for name in found.places])
    damped, by_gate = blocks.strength(unit) * matrix, np.concatenate(list(slopes.values()))
    return GateModel(found.places, mask, by_gate, damped, terms.flip_price, terms.unit_price), slopes
