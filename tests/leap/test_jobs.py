"""Jobs: what is written is what the client would write, and what is read undoes what was done to it."""

import json

import dimod
import numpy as np
import pytest
import scipy.sparse
from dwave.cloud.coders import encode_problem_as_qp
from dwave.cloud.solver import StructuredSolver

from annealsubnet import leap
from annealsubnet.leap.devices import qpu
from annealsubnet.leap.embedding import embed
from annealsubnet.leap.ising import chain_strength, logical_ising, placed_job
from annealsubnet.leap.jobs import Job, job_from_bytes, job_to_bytes
from annealsubnet.problems import Problem
from annealsubnet.testing.codec import decode_problem, encode_answer

DEVICE = qpu("zephyr", 2, defects=0.1, seed=4)
PROPERTIES = DEVICE["properties"]


def random_job(seed=0, share=0.5) -> Job:
    rng = np.random.default_rng(seed)
    qubits = np.sort(rng.choice(PROPERTIES["qubits"], int(share * len(PROPERTIES["qubits"])), replace=False))
    position = {qubit: number for number, qubit in enumerate(qubits.tolist())}
    pairs = [(position[a], position[b]) for a, b in PROPERTIES["couplers"] if a in position and b in position]
    pairs = np.array(pairs)[rng.random(len(pairs)) < 0.7]
    gauge = rng.choice(np.array([-1, 1], np.int8), qubits.size)
    return Job(qubits, rng.normal(size=qubits.size), pairs, rng.normal(size=len(pairs)), gauge, (), {"num_reads": 1})


def model_of(job: Job) -> dimod.BinaryQuadraticModel:
    fields = dict(zip(job.qubits.tolist(), (job.fields * job.gauge).tolist(), strict=True))
    couplings = job.couplings * job.gauge[job.pairs].prod(axis=1)
    ends = job.qubits[job.pairs].tolist()
    return dimod.BinaryQuadraticModel(fields, {tuple(e): j for e, j in zip(ends, couplings.tolist(), strict=True)}, "SPIN")


def test_body_is_what_the_client_writes():
    job = random_job()
    model = model_of(job)
    solver = StructuredSolver(client=None, data=DEVICE)
    expected = encode_problem_as_qp(solver, dict(model.linear), dict(model.quadratic), undirected_biases=True)
    body = job.body("a label", DEVICE["identity"], PROPERTIES)
    assert body["data"]["lin"] == expected["lin"] and body["data"]["quad"] == expected["quad"]
    assert body["label"] == "a label" and body["solver"] == DEVICE["identity"]


def test_a_gauge_changes_what_is_sent_and_not_what_is_read():
    """E(s) of the problem as planned equals E'(s g) of the problem as sent, for every state."""
    job = random_job(1)
    sent = decode_problem(job.body("", DEVICE["identity"], PROPERTIES)["data"], "ising", PROPERTIES)
    states = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (20, job.qubits.size))
    energies = states @ sent.fields + (states[:, sent.pairs[:, 0]] * states[:, sent.pairs[:, 1]]) @ sent.couplings
    answer = encode_answer(
        states, energies, sent.qubits, num_qubits=PROPERTIES["num_qubits"], histogram=False, max_answers=None, timing={}
    )
    spins, counts = job.spins({"type": "ising", "answer": json.loads(json.dumps(answer))})
    products = spins[:, job.pairs[:, 0]] * spins[:, job.pairs[:, 1]]
    assert np.allclose(spins @ job.fields + products @ job.couplings, energies) and counts.tolist() == [1] * 20


def embedded(seed=0, **options):
    """Two small problems on chains found by the clique embedder."""
    import dwave.graphs

    rng = np.random.default_rng(seed)
    graph = dwave.graphs.zephyr_graph(2, node_list=PROPERTIES["qubits"], edge_list=PROPERTIES["couplers"])
    problems, embeddings = [], []
    for size in (6, 5):
        upper = np.triu(rng.normal(size=(size, size)), 1)
        problems.append(Problem(rng.normal(size=size), upper + upper.T, 0.5))
        embeddings.append(embed(problems[-1], graph, seed=seed).chains)
        graph.remove_nodes_from([qubit for chain in embeddings[-1] for qubit in chain])
    job = placed_job([0, 1], problems, [0.0, 0.3], embeddings, PROPERTIES, {"num_reads": 1}, **{"gauge_seed": 3, **options})
    return problems, job


def test_energy_on_qubits_is_the_scaled_energy_of_the_parts_plus_whole_chains():
    problems, job = embedded()
    rng = np.random.default_rng(1)
    for _ in range(10):
        states = [rng.integers(0, 2, problem.size) for problem in problems]
        spins = np.zeros(job.qubits.size)
        expected = 0.0
        for place, problem, state, price in zip(job.placements, problems, states, (0.0, 0.3), strict=True):
            for chain, value in zip(place.chains, state, strict=True):
                spins[chain] = 2 * value - 1
            fields, pairs, couplings = logical_ising(problem, price)
            logical = 2 * state - 1
            ising = logical @ fields + (logical[pairs[:, 0]] * logical[pairs[:, 1]]) @ couplings
            inside = sum(int(np.isin(job.pairs, chain).all(axis=1).sum()) for chain in place.chains)
            expected += place.scale * ising - place.chain_strength * inside
            constant = problem.energy(state) + price * state.sum() - ising
            assert constant == pytest.approx(problem.energy(np.zeros(problem.size)) - (-fields.sum() + couplings.sum()))
        found = spins @ job.fields + (spins[job.pairs[:, 0]] * spins[job.pairs[:, 1]]) @ job.couplings
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_values_are_within_ranges_under_any_gauge(seed):
    problems, job = embedded(gauge_seed=seed)
    low, high = PROPERTIES["extended_j_range"]
    sent = job.couplings * job.gauge[job.pairs].prod(axis=1)
    assert sent.min() >= low - 1e-9 and sent.max() <= high + 1e-9
    assert np.abs(job.fields).max() <= PROPERTIES["h_range"][1] + 1e-9
    for place, problem in zip(job.placements, problems, strict=True):
        strength = chain_strength(*logical_ising(problem, 0.3 if place.part else 0.0))
        assert place.chain_strength == pytest.approx(place.scale * strength)


@pytest.mark.parametrize("exponent", [-900, -550, -20, 530, 900])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_a_power_of_two_changes_nothing_but_the_scale(exponent, form):
    factor = 2.0**exponent
    rng = np.random.default_rng(0)
    plain, times = [], []
    for num_kept in (None, 4):
        upper = np.triu(rng.normal(size=(12, 12)), 1)
        linear, couplings = rng.normal(size=12), upper + upper.T
        plain.append(Problem(linear, form(couplings), num_kept=num_kept))
        times.append(Problem(factor * linear, form(factor * couplings), num_kept=num_kept))
    one, other = (leap.plan(problems, "zephyr:3", seed=0, num_reads=10) for problems in (plain, times))
    assert [factor * part.price for part in one.parts] == [part.price for part in other.parts]
    for job, as_large in zip(one.jobs, other.jobs, strict=True):
        for name in ("qubits", "fields", "pairs", "couplings"):
            assert np.array_equal(getattr(job, name), getattr(as_large, name)), name
        for place, found in zip(job.placements, as_large.placements, strict=True):
            assert (place.scale, place.chain_strength) == (factor * found.scale, found.chain_strength)


@pytest.mark.parametrize("factor", [1e-300, 1e-165, 1e160, 1e300])
def test_chains_are_as_strong_as_couplings_however_small_beside_the_fields(factor):
    fields, pairs, couplings = logical_ising(Problem(np.ones(3), np.ones((3, 3)) - np.eye(3)))
    strength = chain_strength(fields, pairs, factor * couplings)
    assert strength == pytest.approx(factor * chain_strength(fields, pairs, couplings), rel=1e-12, abs=0.0)


def test_jobs_survive_the_ledger():
    _, job = embedded(states=[np.ones(6), np.zeros(5)])
    back = job_from_bytes(job_to_bytes(job))
    for name in ("qubits", "fields", "pairs", "couplings", "gauge", "initial"):
        assert np.array_equal(getattr(back, name), getattr(job, name))
    assert back.params == job.params and [place.part for place in back.placements] == [0, 1]
    for one, other in zip(back.placements, job.placements, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.chains, other.chains, strict=True))


def test_parts_that_a_changed_graph_cannot_hold_are_left_behind_by_name():
    _, job = embedded()
    dead = int(job.qubits[job.placements[0].chains[2][0]])
    changed = {**PROPERTIES, "qubits": [qubit for qubit in PROPERTIES["qubits"] if qubit != dead]}
    changed["couplers"] = [pair for pair in PROPERTIES["couplers"] if dead not in pair]
    with pytest.raises(ValueError, match="qubits that the solver does not have"):
        job.body("", DEVICE["identity"], changed)
    left, lost = job.on(changed)
    assert lost == (0,) and [place.part for place in left.placements] == [1]
    left.body("", DEVICE["identity"], changed)
    second = job.placements[1]
    assert np.allclose(left.fields, job.fields[np.sort(np.concatenate(second.chains))])


def test_a_truncated_answer_is_no_answer():
    job = random_job(2)
    states = np.ones((4, job.qubits.size), np.int8)
    answer = encode_answer(
        states, np.zeros(4), job.qubits, num_qubits=PROPERTIES["num_qubits"], histogram=False, max_answers=None, timing={}
    )
    answer["solutions"] = answer["solutions"][: len(answer["solutions"]) // 2]
    with pytest.raises(ValueError, match="can't be decoded"):
        job.spins({"type": "ising", "answer": answer})
