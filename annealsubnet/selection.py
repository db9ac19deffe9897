"""Selection: which units of one layer or site stay, given how many.

Two routes lead from the statistics to the answer. Without a sampler the exact error after the refit is annealed by exchanges
(`annealsubnet.solvers.select_refit`). With a sampler, any `dimod.Sampler`, the same question is asked as binary quadratic
models: solve, refit, repeat. Weights that are not to be refitted are quadratic to begin with.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int

from annealsubnet.arguments import check_weight, check_whole
from annealsubnet.exchanges import exchange_inputs
from annealsubnet.neighborhoods import strongest
from annealsubnet.networks import Network, Params, Site
from annealsubnet.patterns import Pattern
from annealsubnet.problems import Problem, fan_in_problem, site_problem, sparsify
from annealsubnet.solvers.door import solve, solve_all
from annealsubnet.solvers.greedy import eliminate
from annealsubnet.solvers.select_refit import select_inputs, select_units
from annealsubnet.solvers.threads import by_group
from annealsubnet.statistics.moments import Regression, ridge_target

logger = logging.getLogger(__name__)

Importance = Mapping[str, Float[np.ndarray, "groups outputs"]]


@dataclass(frozen=True)
class Choice:
    """How selections are made.

    Attributes:
        sampler: any `dimod.Sampler`, or None for the exact select-and-refit annealer (Annealer where nothing is refitted).
        options: of the sampler.
        refit: whether what stays will be refitted.
        ridge: of the refit.
        effort: sweeps of the select-and-refit annealer; 0 for descent only (temperature zero).
        rounds: most times that a binary quadratic model is solved and refitted.
        degree: most couplings of a unit in a binary quadratic model; None for all.
        pattern: of the zeros of a kernel; None for any.
    """

    sampler: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    refit: bool = True
    ridge: float = 1e-2
    effort: int = 25
    rounds: int = 24
    degree: int | None = None
    pattern: Pattern | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.effort, int | np.integer) or self.effort < 0:
            raise ValueError(f"effort is {self.effort!r}; give a whole number of sweeps, or 0 for descent only.")
        check_weight("ridge", self.ridge)
        if self.degree is not None:
            check_whole("degree", self.degree, 0)
        if self.sampler is not None and not all(hasattr(self.sampler, name) for name in ("sample", "parameters")):
            raise TypeError(f"sampler is {self.sampler!r}; give a dimod.Sampler such as dwave.samplers.TabuSampler(), or None.")


def select_site(
    network: Network,
    site: Site,
    regressions: Mapping[str, Regression],
    params: Params,
    num_kept: int,
    *,
    importance: Importance,
    choice: Choice,
    seed: int,
) -> Bool[np.ndarray, "units"]:
    """The `num_kept` units of a site that serve its consumers best; units that none of them reads go first.

    Args:
        network: traced.
        site: whose units are chosen.
        regressions: of each consumer, from its present inputs to the dense network's outputs.
        params: present parameters.
        num_kept: how many stay.
        importance: what squared error in each output of each consumer costs.
        choice: how.
        seed: of all that is random.
    """
    site, read = read_part(site)
    if num_kept >= site.size:
        return with_unread(np.ones(site.size, bool), read, num_kept)
    if choice.refit and choice.sampler is None:
        stacked = stack(network, site, regressions, params, importance=importance, ridge=choice.ridge)
        found = select_units(
            stacked.gram,
            stacked.cross,
            stacked.energy,
            num_kept,
            unit_of_input=stacked.unit_of_input,
            seed=seed,
            ridge=0.0,
            num_sweeps=max(choice.effort, 1),
            temperature="annealed" if choice.effort else "zero",
        )
        return with_unread(found.kept, read, num_kept)
    problem = site_problem(site, regressions, network.layers, params, num_kept=num_kept, importance=importance)
    kept = best_state(problem, choice, seed=seed)
    if choice.refit:
        kept = _refined_site(network, site, regressions, params, kept, importance=importance, choice=choice, seed=seed)
    return with_unread(kept, read, num_kept)


def read_part(site: Site) -> tuple[Site, Bool[np.ndarray, "units"]]:
    """A site's units that any consumer reads, numbered without gaps and without gates or slots; and which of all they are.

    What nobody reads changes no consumer's outputs, whether it is there or not: it takes no part in a choice.
    """
    numbers = np.unique(np.concatenate([units.ravel() for units in site.consumers.values()]))
    read = np.isin(np.arange(site.size), numbers)
    place = np.append(np.where(read, np.cumsum(read) - 1, -1), -1)
    consumers = {name: place[units] for name, units in site.consumers.items()}
    return replace(site, size=int(read.sum()), gates=(), zeroed=(), norms={}, consumers=consumers), read


def with_unread(chosen: Bool[np.ndarray, "read"], read: Bool[np.ndarray, "units"], num_kept: int) -> Bool[np.ndarray, "units"]:
    """All units of a site, of which those that nobody reads fill up what the chosen ones leave of `num_kept`."""
    kept = np.zeros(read.size, bool)
    kept[read] = chosen
    kept[np.flatnonzero(~read)[: num_kept - int(chosen.sum())]] = True
    return kept


def best_state(problem: Problem, choice: Choice, *, seed: int) -> Bool[np.ndarray, "units"]:
    """The state of least energy that the sampler finds, with exactly `problem.num_kept` units.

    With a bounded degree the sampler sees each unit's strongest couplings only, the others folded in at the present state:
    first the one that greedy elimination finds, then each answer, for as long as the energy with all couplings falls.
    """
    if choice.degree is None:
        return solve(problem, choice.sampler, seed=seed, **choice.options).best
    edges = strongest(problem.dense_couplings, degree=choice.degree)
    best = eliminate(problem).kept(problem.size if problem.num_kept is None else problem.num_kept)
    least = float(problem.energy(best))
    for number in range(choice.rounds):
        sparse = sparsify(problem, edges, at=best)
        found = solve(sparse.problem, choice.sampler, seed=seed + number, **choice.options).best
        logger.info("degree %d keeps %.0f %% of the coupling of %d units", sparse.degree, 100 * sparse.share_kept, problem.size)
        energy = float(problem.energy(found))
        if energy >= least:
            break
        least, best = energy, found
    return best


def best_states(problems: list[Problem], choice: Choice, *, seeds: list[int]) -> list[np.ndarray]:
    """`best_state` of each of many problems; a sampler that takes many in one call is given all of them."""
    if choice.degree is None:
        return solve_all(problems, choice.sampler, seeds=seeds, **choice.options)
    return [best_state(problem, choice, seed=seed) for problem, seed in zip(problems, seeds, strict=True)]


def _refined_site(
    network: Network,
    site: Site,
    regressions: Mapping[str, Regression],
    params: Params,
    kept: np.ndarray,
    *,
    importance: Importance,
    choice: Choice,
    seed: int,
) -> np.ndarray:
    """Solve, refit, repeat: the quadratic model around the refitted weights, while the error after the refit falls."""
    stacked = stack(network, site, regressions, params, importance=importance, ridge=choice.ridge)
    least, best = np.inf, kept
    for number in range(choice.rounds):
        error, weights = stacked.refit(kept)
        if error >= least * (1 - 1e-9):
            return best
        least, best = error, kept
        kept = best_state(stacked.problem(weights, kept, int(kept.sum())), choice, seed=seed + number + 1)
    return best


@dataclass(frozen=True)
class Stacked:
    """All consumers of a site as one regression: block by block along the inputs and along the outputs.

    What it errs is the error after the refit, whose ridge draws towards the weights that are there; that is in its moments.

    Attributes:
        gram: H plus the ridge, block-diagonal over consumers and groups; centered where a bias is refitted.
        cross: moments of inputs and targets, each output scaled by the root of its importance, plus ridge times weights.
        energy: of the scaled targets; plus the ridge times the squared weights.
        unit_of_input: which unit each input belongs to; −1 for other sites'.
    """

    gram: Float[np.ndarray, "inputs inputs"]
    cross: Float[np.ndarray, "inputs outputs"]
    energy: Float[np.ndarray, "outputs"]
    unit_of_input: Int[np.ndarray, "inputs"]

    def refit(self, kept: np.ndarray) -> tuple[float, np.ndarray]:
        """The error after the refit on the kept units, and the weights."""
        rows = np.flatnonzero(np.append(kept, True)[self.unit_of_input])
        weights = np.zeros_like(self.cross)
        weights[rows] = scipy.linalg.solve(self.gram[np.ix_(rows, rows)], self.cross[rows], assume_a="pos")
        return float(self.energy.sum() - (weights * self.cross).sum()), weights

    def problem(self, weights: np.ndarray, kept: np.ndarray, num_kept: int) -> Problem:
        """The quadratic model around weights that are refitted on the kept units and optimal by themselves off them."""
        residual = self.cross - self.gram @ weights
        units = len(kept)
        inside = np.append(kept, True)[self.unit_of_input]
        candidates = weights.copy()
        for unit in np.flatnonzero(~kept):
            rows = np.flatnonzero(self.unit_of_input == unit)
            block = self.gram[np.ix_(rows, rows)]
            candidates[rows] = np.linalg.lstsq(block, residual[rows], rcond=1e-10)[0]
        assert np.array_equal(candidates[inside], weights[inside])
        product = self.gram * (candidates @ candidates.T)
        linear = (self.cross * candidates).sum(1)
        member = np.append(np.eye(units), np.zeros((1, units)), 0)[self.unit_of_input]
        fixed = (self.unit_of_input < 0).astype(float)
        matrix = 2 * member.T @ product @ member
        fields = 2 * member.T @ (product @ fixed - linear) + np.diag(matrix) / 2
        np.fill_diagonal(matrix, 0.0)
        offset = float(self.energy.sum() + fixed @ product @ fixed - 2 * fixed @ linear)
        return Problem(fields, matrix, offset, num_kept)


def stack(
    network: Network,
    site: Site,
    regressions: Mapping[str, Regression],
    params: Params,
    *,
    importance: Importance,
    ridge: float,
) -> Stacked:
    """One regression of all that a site's consumers should return on all that they read.

    Args:
        network: traced.
        site: whose consumers.
        regressions: of each consumer.
        params: present parameters, towards which the ridge draws.
        importance: of each consumer's outputs.
        ridge: of the refit, in units of the mean of H's diagonal over all consumers; of 1 if none of their inputs ever varies.
    """
    grams, crosses, energies, weights, units = [], [], [], [], []
    for name, unit_of_input in site.consumers.items():
        centered = regressions[name].centered()
        present = network.layers[name].weight_matrix(params)
        for group, weight in enumerate(importance[name]):
            grams.append(centered.gram[group])
            crosses.append(centered.cross[group] * np.sqrt(weight))
            energies.append(centered.target_energy[group] * weight)
            weights.append(present[group] * np.sqrt(weight))
            units.append(unit_of_input[group])
    gram = scipy.linalg.block_diag(*grams)
    drawn = ridge_target(gram, scipy.linalg.block_diag(*weights))
    damping = ridge * (float(np.diag(gram).mean()) or 1.0)
    return Stacked(
        gram + damping * np.eye(len(gram)),
        scipy.linalg.block_diag(*crosses) + damping * drawn,
        np.concatenate(energies) + damping * np.square(drawn).sum(axis=0),
        np.concatenate(units),
    )


def select_weights(
    regression: Regression,
    weights: Float[np.ndarray, "groups fan_in outputs"],
    num_kept: Int[np.ndarray, "groups outputs"],
    *,
    bias: Float[np.ndarray, "groups outputs"],
    choice: Choice,
    seed: int,
) -> Bool[np.ndarray, "groups fan_in outputs"]:
    """For every neuron of a layer, the inputs that it keeps.

    Args:
        regression: from a layer's present inputs to the dense network's outputs.
        weights: present weights.
        num_kept: how many inputs each neuron keeps.
        bias: present biases, which stay if nothing is refitted.
        choice: how.
        seed: of all that is random.
    """
    centered = regression.centered().drawn_to(weights, choice.ridge) if choice.refit else regression.without(bias)

    def select(group: int, threads: int | None) -> np.ndarray:
        gram, cross, energy = centered.gram[group], centered.cross[group], centered.target_energy[group]
        if choice.pattern is not None and choice.pattern.is_block:
            return _blocks(gram, cross, energy, num_kept[group], choice.pattern, choice=choice, seed=seed)
        if not choice.refit or choice.sampler is not None:
            return _fan_ins_by_sampler(gram, cross, energy, weights[group], num_kept[group], choice=choice, seed=seed)
        return select_inputs(
            gram,
            cross,
            energy,
            num_kept[group] if choice.pattern is None else None,
            seed=seed + group,
            pattern=None if choice.pattern is None else choice.pattern.text,
            ridge=choice.ridge,
            num_sweeps=max(choice.effort, 1),
            temperature="annealed" if choice.effort else "zero",
            num_threads=threads,
        ).kept

    if choice.sampler is not None or not choice.refit:
        return np.stack([select(group, None) for group in range(len(weights))])
    return np.stack(by_group(select, len(weights)))


def _blocks(
    gram: np.ndarray,
    cross: np.ndarray,
    energy: np.ndarray,
    num_kept: np.ndarray,
    pattern: Pattern,
    *,
    choice: Choice,
    seed: int,
) -> np.ndarray:
    """Blocks of inputs, chosen in common by as many consecutive neurons as the pattern has."""
    kept = np.ones(cross.shape, bool)
    unit_of_input = np.arange(len(gram)) // pattern.inputs
    for first in range(0, cross.shape[1], pattern.neurons):
        columns = slice(first, first + pattern.neurons)
        found = select_units(
            gram,
            cross[:, columns],
            energy[columns],
            int(num_kept[first]) // pattern.inputs,
            unit_of_input=unit_of_input,
            seed=seed + first,
            ridge=choice.ridge,
            num_sweeps=max(choice.effort, 1),
            temperature="annealed" if choice.effort else "zero",
        )
        kept[:, columns] = found.kept[unit_of_input][:, None]
    return kept


def _fan_ins_by_sampler(
    gram: np.ndarray,
    cross: np.ndarray,
    energy: np.ndarray,
    weights: np.ndarray,
    num_kept: np.ndarray,
    *,
    choice: Choice,
    seed: int,
) -> np.ndarray:
    """Every neuron's inputs by binary quadratic models: of weights as they are, or of exchanges between refits."""
    if choice.refit:
        kept = _largest(np.abs(weights) * np.sqrt(np.diag(gram))[:, None], num_kept)
        return exchange_inputs(
            gram,
            cross,
            energy,
            kept,
            ridge=choice.ridge,
            solve=lambda problems, seeds: best_states(problems, choice, seeds=seeds),
            rounds=choice.rounds,
            seed=seed,
        )
    kept = np.ones(weights.shape, bool)
    active = [neuron for neuron, count in enumerate(num_kept) if count < len(gram)]
    problems = [
        fan_in_problem(gram, cross[:, n], weights[:, n], target_energy=energy[n], num_kept=int(num_kept[n])) for n in active
    ]
    states = best_states(problems, choice, seeds=[seed + 1000 * neuron for neuron in active])
    for neuron, state in zip(active, states, strict=True):
        kept[:, neuron] = state
    return kept


def _largest(scores: np.ndarray, num_kept: np.ndarray) -> np.ndarray:
    """The `num_kept` largest of each column."""
    ranks = np.argsort(np.argsort(-scores, axis=0, kind="stable"), axis=0)
    return ranks < num_kept
