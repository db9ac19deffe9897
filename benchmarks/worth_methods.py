"""The methods of `worth.py`, each a function (model, budgets in seconds of one processor, seed) to (error, seconds) a budget.

Methods that begin again and again run once, for the longest budget, and are read at each: a run counts if it began before the
time was over, so none has less than the budget. Annealing has a schedule to fit, and tabu search a tenure: one run a budget.
"""

import time
from collections.abc import Callable, Sequence

import dimod
import numpy as np
from numba import njit
from worth_models import Model

from annealsubnet import Annealer
from annealsubnet.solvers.schedules import settled_beta_range

Course = list[tuple[float, float]]
PILOT = 25
# D-Wave's tabu search wants a BinaryQuadraticModel, which takes gigabytes beyond this many variables.
TABU_LIMIT = 4096


@njit(cache=True)
def _fields(linear, couplings, state):
    fields = linear.copy()
    for i in range(state.size):
        if state[i]:
            fields += couplings[i]
    return fields


@njit(cache=True)
def _flip(couplings, state, fields, i):
    sign = -1.0 if state[i] else 1.0
    state[i] = not state[i]
    for j in range(state.size):
        fields[j] += sign * couplings[i, j]


@njit(cache=True)
def flip_descent(linear, couplings, state):
    """Steepest single flips until none helps."""
    fields = _fields(linear, couplings, state)
    while True:
        best, where = -1e-12, -1
        for i in range(state.size):
            change = -fields[i] if state[i] else fields[i]
            if change < best:
                best, where = change, i
        if where < 0:
            return
        _flip(couplings, state, fields, where)


@njit(cache=True)
def pair_descent(linear, couplings, state):
    """The best of all flips and pairs of flips, until none helps. Pairs that cannot beat the best so far are passed over."""
    size = state.size
    fields = _fields(linear, couplings, state)
    strongest = np.zeros(size)
    for i in range(size):
        strongest[i] = np.abs(couplings[i]).max()
    while True:
        signs = np.where(state, -1.0, 1.0)
        change = signs * fields
        order = np.argsort(change)
        best, a, b = -1e-12, -1, -1
        if change[order[0]] < best:
            best, a = change[order[0]], order[0]
        for place in range(size):
            i = order[place]
            for other in range(place + 1, size):
                j = order[other]
                base = change[i] + change[j]
                if base - strongest[i] >= best:
                    break  # later partners only cost more
                total = base + signs[i] * signs[j] * couplings[i, j]
                if total < best:
                    best, a, b = total, i, j
        if a < 0:
            return
        _flip(couplings, state, fields, a)
        if b >= 0:
            _flip(couplings, state, fields, b)


def compile_all() -> None:
    """Compile everything before it is timed."""
    tiny = np.triu(np.random.default_rng(0).normal(size=(20, 20)), 1)
    model = Model(tiny[0].copy(), tiny + tiny.T, 1.0)
    for method in METHODS.values():
        method(model, (1e-3,), 0)


def _course(step: Callable[[], float], budgets: Sequence[float]) -> Course:
    """The lowest of what `step` returns, at each budget."""
    begin, best, found = time.process_time(), np.inf, []
    for budget in budgets:
        while time.process_time() - begin < budget or best == np.inf:
            best = min(best, step())
        found.append((best, time.process_time() - begin))
    return found


def annealed(model: Model, budgets: Sequence[float], seed: int) -> Course:
    """`Annealer.sample_many` of this one problem: one read that fits the budget, and another if a quarter of it is left.

    The range of temperatures comes from the flips at a local minimum, the number of sweeps from two pilots; all are paid for.
    """
    found = []
    for budget in budgets:
        begin = time.process_time()

        def run(number: int, num_sweeps: int, beta_range: tuple[float, float] | None) -> tuple[float, float, np.ndarray]:
            start = time.process_time()
            one = {"num_reads": 1, "num_threads": 1, "num_sweeps": num_sweeps, "beta_range": beta_range, "seed": number}
            samples = Annealer().sample_many(model.linear[None], model.couplings[None], **one)
            return float(samples.energies[0, 0]), time.process_time() - start, samples.states[0, 0]

        one, few, state = run(seed, PILOT, None)
        beta_range = settled_beta_range(model.linear, model.couplings, state)
        other, more, _ = run(seed, 5 * PILOT, beta_range)
        # What a sweep costs and what the rest does; on the safe side where a call is mostly the rest, and the difference noise.
        sweep = max(more - few, more / 2) / (4 * PILOT)
        lowest, fixed, number = min(one, other), max(few - PILOT * sweep, 0.0), seed
        while (left := budget - (time.process_time() - begin)) > budget / 4:
            sweeps = int(0.9 * (left - fixed) / sweep)
            if sweeps < PILOT:
                break
            number += 1000
            energy, took, _ = run(number, sweeps, beta_range)
            lowest, sweep = min(lowest, energy), max(took - fixed, took / 2) / sweeps
        found.append((model.offset + lowest, time.process_time() - begin))
    return found


def restarted(descend: Callable[..., None]) -> Callable[[Model, Sequence[float], int], Course]:
    """Descents from random states."""

    def run(model: Model, budgets: Sequence[float], seed: int) -> Course:
        rng = np.random.default_rng(seed)

        def step() -> float:
            state = rng.random(model.linear.size) < 0.5
            descend(model.linear, model.couplings, state)
            return float(model.error(state)[0])

        return _course(step, budgets)

    return run


def grown(model: Model) -> np.ndarray:
    """Forward selection: add what helps most, until nothing helps."""
    state, fields = np.zeros(model.linear.size, bool), model.linear.copy()
    while (choice := int(np.where(state, np.inf, fields).argmin())) >= 0 and fields[choice] < 0 and not state[choice]:
        state[choice] = True
        fields += model.couplings[choice]
    return state


def forward(model: Model, budgets: Sequence[float], seed: int) -> Course:
    """Forward selection; it takes the time it takes."""
    begin = time.process_time()
    found = float(model.error(grown(model))[0])
    return [(found, time.process_time() - begin)] * len(budgets)


def kicked(model: Model, budgets: Sequence[float], seed: int) -> Course:
    """Forward selection and best-pair descent, then: flip one unit in fifty at random, descend again, keep the better state."""
    rng, size = np.random.default_rng(seed), model.linear.size
    least, kept = np.inf, np.zeros(size, bool)

    def step() -> float:
        nonlocal least, kept
        state = grown(model) if least == np.inf else kept.copy()
        if least < np.inf:
            state[rng.choice(size, max(2, size // 50), replace=False)] ^= True
        pair_descent(model.linear, model.couplings, state)
        error = float(model.error(state)[0])
        if error < least:
            least, kept = error, state
        return least

    return _course(step, budgets)


def tabu(model: Model, budgets: Sequence[float], seed: int) -> Course:
    """D-Wave's tabu search, one read of all the time; building its model is not counted."""
    from dwave.samplers import TabuSampler

    if model.linear.size > TABU_LIMIT:
        return []
    rows, columns = np.nonzero(np.triu(model.couplings, 1))
    quadratic = (rows, columns, model.couplings[rows, columns])
    bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(model.linear, quadratic, model.offset, "BINARY")
    found = []
    for budget in budgets:
        begin = time.process_time()
        sampleset = TabuSampler().sample(bqm, timeout=max(1, int(1000 * budget)), num_reads=1, seed=seed)
        found.append((float(sampleset.first.energy), time.process_time() - begin))
    return found


def random_masks(model: Model, budgets: Sequence[float], seed: int) -> Course:
    """The best of as many random masks as fit the time."""
    rng = np.random.default_rng(seed)
    return _course(lambda: float(model.error(rng.random((64, model.linear.size)) < 0.5).min()), budgets)


METHODS: dict[str, Callable[[Model, Sequence[float], int], Course]] = {
    "annealed": annealed,
    "flip descent": restarted(flip_descent),
    "pair descent": restarted(pair_descent),
    "kicked": kicked,
    "tabu": tabu,
    "forward": forward,
    "random": random_masks,
}


def priced(model: Model) -> Model:
    """The model with a price on every unit at which single flips from all kept leave about half of them."""
    low, high = 0.0, float(np.abs(model.linear).max() + np.abs(model.couplings).sum(axis=1).max())
    for _ in range(20):
        price = 0.5 * (low + high)
        state = np.ones(model.linear.size, bool)
        flip_descent(model.linear + price, model.couplings, state)
        low, high = (price, high) if state.sum() > state.size / 2 else (low, price)
    return Model(model.linear + price, model.couplings, model.offset)
