"""A comparison gives every method the same networks, data and refit, and measures its own weights beside them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from flax import nnx

from annealsubnet import evaluate, prune, refit
from annealsubnet.networks import as_network
from annealsubnet.report import PackageProcedures, Plan, Trial, compare, smallest_good
from annealsubnet.statistics.weight_distance import distance_to

RNGS = [nnx.Rngs(0), nnx.Rngs(1)]


@dataclass
class FakeMask:
    kept_count: int
    size: int = 100


@dataclass
class FakeEvaluation:
    accuracy: float
    loss: float = 0.5
    examples: int = 10
    parameters: int = 100
    nonzeros: int = 50
    flops: int = 200


class FakeProcedures:
    """A network is a number, its accuracy; a refit adds 0.25, and networks are as far apart as their numbers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def prepare(self, model: Any, batches: Any) -> Any:
        return model

    def evaluate(self, model: Any, batches: Any, mask: Any = None) -> FakeEvaluation:
        self.calls.append(("evaluate", model, batches, mask))
        return FakeEvaluation(model)

    def adopt(self, model: Any, own: Any) -> Any:
        return own

    def distance(self, model: Any, other: Any, batches: Any) -> float:
        self.calls.append(("distance", other, batches))
        return abs(model - other)

    def refit(self, model: Any, mask: Any, batches: Any) -> Any:
        self.calls.append(("refit", model, batches, mask))
        return model + 0.25


def keeping(share: float, *, off: float = 0.0) -> Any:
    """A method whose own network is that far below the dense one."""

    def method(model: Any, batches: Any, *, keep: Any, unit: str, scope: str, seed: int) -> tuple[FakeMask, Any]:
        return FakeMask(round(100 * keep * share)), model - off

    return method


def trials() -> Any:
    return (Trial(seed, 0.5 + 0.125 * seed, f"calibration {seed}", f"test {seed}") for seed in (0, 1))


METHODS = {"annealed": keeping(1), "other": keeping(0.5)}
PLAN = Plan({"weight": METHODS, "neuron": METHODS}, {"weight": (0.5, 0.1), "neuron": (0.2,)})


def test_there_is_a_row_for_each_unit_size_method_seed_and_stage() -> None:
    rows = compare(trials(), PLAN, procedures=FakeProcedures()).rows
    assert len({(row.unit, row.keep, row.method, row.seed, row.refit) for row in rows}) == len(rows) == 2 * (1 + 3 * 2 * 2)
    assert {(row.keep, row.method, row.kept) for row in rows if row.unit == "neuron"} == {
        (0.2, "annealed", 20),
        (0.2, "other", 10),
    }


def test_only_the_evaluation_reads_test_data() -> None:
    procedures = FakeProcedures()
    compare(trials(), PLAN, procedures=procedures)
    assert {(call[0], next(word for word in call[2:] if isinstance(word, str)).split()[0]) for call in procedures.calls} == {
        ("evaluate", "test"),
        ("refit", "calibration"),
        ("distance", "calibration"),
    }


def test_a_methods_own_weights_are_measured_beside_the_refit() -> None:
    plan = Plan({"weight": {"annealed": keeping(1, off=0.125)}}, {"weight": (0.5,)})
    rows = [row for row in compare(trials(), plan, procedures=FakeProcedures()).rows if row.unit]
    assert [(row.seed, row.refit, row.accuracy, row.distance) for row in rows] == [
        (0, False, 0.375, 0.125),
        (0, True, 0.75, 0.25),
        (1, False, 0.5, 0.125),
        (1, True, 0.875, 0.25),
    ]


@pytest.mark.parametrize(("off", "kept"), [(0.125, 0.375), (0.375, 0.75)], ids=["own weights", "refitted"])
def test_of_a_methods_two_networks_the_nearer_one_is_kept(off, kept) -> None:
    plan = Plan({"weight": {"annealed": keeping(1, off=off)}}, {"weight": (0.5,)})
    assert compare(trials(), plan, procedures=FakeProcedures()).networks == {("weight", 0.5): kept}


def test_without_refit_there_is_only_the_methods_own_network() -> None:
    procedures = FakeProcedures()
    rows = compare(trials(), Plan(PLAN.methods, PLAN.keeps, stages=(False,)), procedures=procedures).rows
    assert not any(row.refit for row in rows)
    assert {call[0] for call in procedures.calls} == {"evaluate", "distance"}


def test_our_masks_of_the_first_seed_are_kept() -> None:
    masks = compare(trials(), PLAN, procedures=FakeProcedures()).masks
    assert {key: mask.kept_count for key, mask in masks.items()} == {
        ("weight", 0.5): 50,
        ("weight", 0.1): 10,
        ("neuron", 0.2): 20,
    }


def test_every_choice_is_reported_once() -> None:
    steps: list[str] = []
    compare(trials(), PLAN, procedures=FakeProcedures(), report=steps.append)
    assert len(steps) == 2 * PLAN.steps == 12


def test_every_size_is_checked_before_the_first_mask_is_chosen() -> None:
    asked: list[tuple[Any, ...]] = []

    def check(model: Any, *, keep: Any, unit: str, scope: str) -> None:
        asked.append((unit, keep, scope))
        if unit == "neuron":
            raise ValueError("no such size")

    steps: list[str] = []
    plan = Plan(PLAN.methods, PLAN.keeps, {"neuron": "layer"}, check=check)
    with pytest.raises(ValueError, match="no such size"):
        compare(trials(), plan, procedures=FakeProcedures(), report=steps.append)
    assert asked == [("weight", 0.5, "network"), ("weight", 0.1, "network"), ("neuron", 0.2, "layer")] and not steps


def test_a_method_that_fails_ends_the_comparison() -> None:
    def failing(*arguments: Any, **options: Any) -> Any:
        raise ValueError("no such size")

    with pytest.raises(ValueError, match="no such size"):
        compare(trials(), Plan({"weight": {"annealed": failing}}, {"weight": (0.5,)}), procedures=FakeProcedures())


def test_the_smallest_size_within_a_point_of_the_dense_network_is_good(rows) -> None:
    assert smallest_good(rows, "weight", "annealed") == 0.5
    assert smallest_good(rows, "weight", "annealed", tolerance=0.06) == 0.25
    assert smallest_good(rows, "weight", "magnitude") == 0.5, "none is good: the largest"


def test_the_package_measures_what_prune_returned_and_how_far_it_is_from_the_dense_network() -> None:
    network = nnx.Sequential(nnx.Linear(6, 12, rngs=RNGS[0]), nnx.relu, nnx.Linear(12, 3, rngs=RNGS[0]))
    inputs = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    batches = [(inputs, np.argmax(network(inputs), axis=1))]
    options = {"keep": 0.3, "unit": "weight", "scope": "network", "seed": 0}
    plan = Plan({"weight": {"annealed": partial(prune, effort=0)}}, {"weight": (0.3,)})
    found = compare([Trial(0, network, batches, batches)], plan)
    mask, own = prune(network, batches, effort=0, **options)
    traced = as_network(network, inputs)
    for row, pruned in zip(found.rows[1:], (own, refit(network, mask, batches)), strict=True):
        assert row.loss == pytest.approx(evaluate(pruned, batches).loss, rel=1e-5)
        assert row.distance == pytest.approx(distance_to(traced, batches, params=traced.replace(pruned).params), rel=1e-4)
    assert found.rows[1].distance < found.rows[2].distance, "polished, its own weights are nearer"
    saved = found.networks["weight", 0.3].params
    assert all(np.array_equal(value, saved[path]) for path, value in traced.replace(own).params.items())


def test_networks_of_one_architecture_share_programs_and_not_results() -> None:
    networks = [nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 3, rngs=rngs)) for rngs in RNGS]
    inputs = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    batches = [(inputs, np.argmax(networks[0](inputs), axis=1))]
    shared = PackageProcedures()
    together = [shared.prepare(network, batches) for network in networks]
    assert together[0].programs is together[1].programs
    alone = [PackageProcedures().prepare(network, batches) for network in networks]
    assert alone[0].programs is not alone[1].programs
    assert [shared.evaluate(one, batches) for one in together] == [evaluate(one, batches) for one in networks]
    assert shared.evaluate(together[0], batches).accuracy == 1 != shared.evaluate(together[1], batches).accuracy


def test_networks_with_more_than_parameters_share_nothing() -> None:
    networks = [nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)) for rngs in RNGS]
    for network in networks:
        network.eval()
    shared = PackageProcedures()
    batches = [np.ones((2, 4), np.float32)]
    together = [shared.prepare(network, batches) for network in networks]
    assert together[0].programs is not together[1].programs


def test_a_method_that_asks_is_told_whether_a_refit_will_follow() -> None:
    def method(model: Any, batches: Any, *, keep: Any, unit: str, scope: str, seed: int, refit: bool) -> tuple[FakeMask, Any]:
        return FakeMask(7 if refit else 3), model

    for stages in ((False, True), (True,), (False,)):
        plan = Plan({"weight": {"annealed": method}}, {"weight": (0.5,)}, stages=stages)
        found = compare(trials(), plan, procedures=FakeProcedures())
        assert {row.kept for row in found.rows if row.unit} == {7 if stages[-1] else 3}
        assert found.masks["weight", 0.5].kept_count == (7 if stages[-1] else 3), "the mask of the last stage"
