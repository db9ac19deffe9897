"""Comparison: several methods, sizes and seeds on the same networks, data and refit, as rows.

For each seed there is a trial (a network, calibration batches, test batches). For each unit, size and method of a trial

    mask, own = method(network, calibration)    accuracy of own, and of refit(network, mask, calibration)

`own` has the weights as the method left them: the dense ones where it only chooses, others where it refits while it chooses.
The refit starts from the dense weights, so that there methods differ in the choice of the mask and in nothing else. A method
that takes `refit` is told whether a refit will follow. Which of a method's two networks is better is decided by their distances
to the dense one on the calibration examples, never by the test.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import jax
from flax import nnx

from annealsubnet.batches import first_inputs
from annealsubnet.evaluation import evaluate
from annealsubnet.networks import Network, as_network
from annealsubnet.parameter_files import save_parameters
from annealsubnet.refitting import refit
from annealsubnet.report.rows import DENSE, Keep, Row, nearest, summarize
from annealsubnet.statistics.weight_distance import distance_to

ANNEALED = "annealed"
"""Our own method's name among the methods."""


@dataclass(frozen=True)
class Trial:
    """What one seed brings.

    Attributes:
        seed: of the network, of the calibration examples, and for the methods.
        model: the dense network.
        calibration: batches that methods and refit may read.
        test: labeled batches that only the evaluation reads.
    """

    seed: int
    model: Any
    calibration: Any
    test: Any


class Procedures(Protocol):
    """What all methods share."""

    def prepare(self, model: Any, batches: Any) -> Any:
        """`model` in the form that methods, `refit` and `evaluate` take."""

    def adopt(self, model: Any, own: Any) -> Any:
        """What a method returned beside its mask of `model`, in the form that `evaluate` takes."""

    def evaluate(self, model: Any, batches: Any, mask: Any = None) -> Any:
        """Accuracy, loss and costs of `model` under `mask`."""

    def distance(self, model: Any, other: Any, batches: Any) -> float:
        """How far the outputs of `other` are from those of `model`."""

    def refit(self, model: Any, mask: Any, batches: Any) -> Any:
        """`model` under `mask`, its kept weights refitted, in a form that `evaluate` takes."""

    def save(self, model: Any, mask: Any, path: Path) -> None:
        """Write the parameters of `model` under `mask` to a file."""


class PackageProcedures:
    """The package's own functions; networks of one architecture share what is compiled for the first of them.

    Args:
        together: whether the common refit ends with a fit of all layers together.
    """

    def __init__(self, *, together: bool = False) -> None:
        self._together = together
        self._traced: dict[Hashable, Network] = {}

    def prepare(self, model: Any, batches: Any) -> Any:
        """The traced network."""
        if isinstance(model, Network):
            return model
        example = first_inputs(batches)
        architecture = _architecture(model)
        if architecture is None:
            return as_network(model, example)
        key = (architecture, example.shape[1:], example.dtype.str)
        if key in self._traced:
            return self._traced[key].replace(model)
        return self._traced.setdefault(key, as_network(model, example))

    def adopt(self, model: Any, own: Any) -> Any:
        """The traced network with the parameters of `own`."""
        return model.replace(own)

    def evaluate(self, model: Any, batches: Any, mask: Any = None) -> Any:
        """Accuracy, loss and costs of `model` under `mask`."""
        return evaluate(model, batches, mask=mask)

    def distance(self, model: Any, other: Any, batches: Any) -> float:
        """The distance that the package's own selections are measured by."""
        return distance_to(model, batches, params=other.params)

    def refit(self, model: Any, mask: Any, batches: Any) -> Any:
        """`model` under `mask`, its kept weights refitted."""
        return model.replace(refit(model, mask, batches, together=self._together))

    def save(self, model: Any, mask: Any, path: Path) -> None:
        """Write the parameters of `model` under `mask`, in the form in which the model came."""
        save_parameters(model.model.export(mask.multiply(model.params)), path)


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes:
        methods: unit to the methods that choose it: name to a function called like `prune`.
        keeps: unit to the sizes to prune to.
        scopes: unit to what its sizes are meant of: "network", "layer" or "neuron"; "network" for those left out.
        stages: which networks to measure: `False` for the method's own, `True` for the refitted one.
        kept_masks: method whose masks are returned, all sizes, for the first seed.
        check: called with each network and every `keep`, `unit` and `scope` before the first mask is chosen; raises for a size
            that can't be kept, before there are results to lose.
    """

    methods: Mapping[str, Mapping[str, Callable[..., Any]]]
    keeps: Mapping[str, Sequence[Keep]]
    scopes: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[bool, ...] = (False, True)
    kept_masks: str = ANNEALED
    check: Callable[..., Any] = lambda network, *, keep, unit, scope: None

    @property
    def steps(self) -> int:
        """Choices of a mask for each trial."""
        return sum(len(keeps) * len(self.methods[unit]) for unit, keeps in self.keeps.items())


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        rows: every measurement; the dense network's once for each seed.
        masks: (unit, keep) to the mask that the method `Plan.kept_masks` chose with the first seed.
        networks: (unit, keep) to the network of that mask, of several stages the nearest to the dense network (`nearest`).
    """

    rows: tuple[Row, ...]
    masks: Mapping[tuple[str, Keep], Any]
    networks: Mapping[tuple[str, Keep], Any]


def compare(
    trials: Iterable[Trial],
    plan: Plan,
    *,
    procedures: Procedures | None = None,
    report: Callable[[str], None] = lambda step: None,
) -> Comparison:
    """Measure every method of `plan` on every trial.

    Args:
        trials: one for each seed; made one after the other if it is a generator.
        plan: methods, sizes and stages.
        procedures: what evaluates and refits; the package's own functions if `None`.
        report: called before each choice of a mask with a sentence about it.

    Returns:
        Rows in the order of trials, units, sizes, methods, stages; masks and their networks.
    """
    procedures = procedures or PackageProcedures()
    rows: list[Row] = []
    masks: dict[tuple[str, Keep], Any] = {}
    networks: dict[tuple[str, Keep], Any] = {}
    for number, given in enumerate(trials):
        trial = replace(given, model=procedures.prepare(given.model, given.calibration))
        for unit, keeps in plan.keeps.items():
            for keep in keeps:
                plan.check(trial.model, keep=keep, unit=unit, scope=_scope(plan, unit))
        seconds, dense = _timed(partial(procedures.evaluate, trial.model, trial.test))
        size = int(dense.parameters)
        rows.append(_row(("", 1.0, DENSE, trial.seed, False), (size, size), dense, 0.0, (0.0, 0.0, seconds)))
        for unit, keep, method in _cells(plan):
            report(f"seed {trial.seed}: {unit}s, keep {keep}, {method}")
            mask, network, measured = _measure(trial, plan, procedures, unit, keep, method)
            rows.extend(measured)
            if number == 0 and method == plan.kept_masks:
                masks[unit, keep], networks[unit, keep] = mask, network
    return Comparison(tuple(rows), masks, networks)


def smallest_good(rows: Sequence[Row], unit: str, method: str, *, tolerance: float = 0.01) -> Keep:
    """The smallest size at which `method` stays within `tolerance` of the dense accuracy, else the largest size.

    Args:
        rows: of a comparison.
        unit: which units.
        method: whose networks, the `nearest` for each seed.
        tolerance: how much mean accuracy may be lost, as a share of 1.

    Returns:
        A size that was asked for.
    """
    dense = summarize([row.accuracy for row in rows if row.method == DENSE]).mean
    accuracy: dict[Keep, list[float]] = {}
    kept: dict[Keep, int] = {}
    for row in nearest(rows):
        if (row.unit, row.method) == (unit, method):
            accuracy.setdefault(row.keep, []).append(row.accuracy)
            kept[row.keep] = row.kept
    good = [keep for keep in kept if summarize(accuracy[keep]).mean >= dense - tolerance]
    return min(good, key=kept.__getitem__) if good else max(kept, key=kept.__getitem__)


def _architecture(model: Any) -> Hashable | None:
    """Equal for two models that differ in nothing but the values of their parameters; `None` if that can't be told."""
    if not isinstance(model, nnx.Module):
        return None
    split: Any = nnx.split(model, nnx.Param, ...)
    graph, _, rest = split
    return None if jax.tree.leaves(rest) else graph


def _cells(plan: Plan) -> Iterable[tuple[str, Keep, str]]:
    """Unit, size and method of every mask to choose."""
    return ((unit, keep, method) for unit, keeps in plan.keeps.items() for keep in keeps for method in plan.methods[unit])


def _scope(plan: Plan, unit: str) -> str:
    """What the sizes of a unit are meant of."""
    return plan.scopes.get(unit, "network")


def _measure(
    trial: Trial, plan: Plan, procedures: Procedures, unit: str, keep: Keep, method: str
) -> tuple[Any, Any, list[Row]]:
    """The mask that `method` chose, of its networks the nearest to the dense one, and a row for each stage."""
    options = {"keep": keep, "unit": unit, "scope": _scope(plan, unit), "seed": trial.seed}
    choose = partial(plan.methods[unit][method], trial.model, trial.calibration, **options)
    if "refit" in signature(choose).parameters:
        choose = partial(choose, refit=plan.stages[-1])
    chosen, (mask, own) = _timed(choose)
    networks: dict[Row, Any] = {}
    for refitted in plan.stages:
        if refitted:
            refitting, model = _timed(partial(procedures.refit, trial.model, mask, trial.calibration))
        else:
            refitting, model = 0.0, procedures.adopt(trial.model, own)
        seconds, result = _timed(partial(procedures.evaluate, model, trial.test, mask))
        distance = procedures.distance(trial.model, model, trial.calibration)
        names = (unit, keep, method, trial.seed, refitted)
        counts = (int(mask.kept_count), int(mask.size))
        networks[_row(names, counts, result, distance, (chosen, refitting, seconds))] = model
    return mask, networks[nearest(networks)[0]], list(networks)


def _row(
    names: tuple[str, Keep, str, int, bool],
    count: tuple[int, int],
    result: Any,
    distance: float,
    seconds: tuple[float, float, float],
) -> Row:
    """The row of one evaluation."""
    return Row(
        *names,
        *count,
        accuracy=float(result.accuracy),
        loss=float(result.loss),
        distance=distance,
        examples=int(result.examples),
        nonzeros=int(result.nonzeros),
        parameters=int(result.parameters),
        flops=int(result.flops),
        seconds_select=seconds[0],
        seconds_refit=seconds[1],
        seconds_evaluate=seconds[2],
    )


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that `work` took, and what it gave."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result
