"""The loopback server against the unmodified client: what is sent is what is solved, and what goes wrong is what was asked."""

import dimod
import numpy as np
import pytest

pytest.importorskip("dwave.system")

from dwave.cloud.api import Problems
from dwave.cloud.api.exceptions import InternalServerError, ResourceAuthenticationError, ResourceLimitsExceededError
from dwave.cloud.coders import encode_problem_as_qp
from dwave.cloud.exceptions import SolverAuthenticationError, SolverFailureError
from dwave.system import DWaveSampler, EmbeddingComposite, LeapHybridCQMSampler, LeapHybridSampler
from requests.exceptions import ConnectionError as Lost

from annealsubnet.testing import Faults, LoopbackLeap, Noise
from annealsubnet.testing.codec import decode_problem


@pytest.fixture(scope="module")
def leap():
    with LoopbackLeap(size=3, seed=1) as server:
        yield server


@pytest.fixture(scope="module")
def sampler(leap):
    with DWaveSampler(**leap.config) as sampler:
        yield sampler


def random_model(sampler, vartype, seed=0):
    rng = np.random.default_rng(seed)
    linear = {qubit: rng.normal() for qubit in sampler.nodelist}
    quadratic = {edge: rng.normal() for edge in sampler.edgelist}
    return dimod.BinaryQuadraticModel(linear, quadratic, 1.5, vartype)


@pytest.mark.parametrize("topology", ["zephyr", "pegasus"])
@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
def test_energies_are_those_of_the_model_that_was_sent(topology, vartype):
    with LoopbackLeap(topology=topology, size=2, seed=0) as leap, DWaveSampler(**leap.config) as sampler:
        model = random_model(sampler, vartype)
        answer = sampler.sample(model, num_reads=7, answer_mode="raw")
        assert answer.record.num_occurrences.sum() == 7
        assert np.allclose(model.energies(answer), answer.record.energy)


def test_codec_reads_what_the_client_writes(sampler):
    model = random_model(sampler, "SPIN", seed=3)
    some = list(sampler.nodelist)[::3]
    model = dimod.BinaryQuadraticModel(
        {qubit: model.linear[qubit] for qubit in some},
        {pair: bias for pair, bias in model.quadratic.items() if set(pair) <= set(some)},
        "SPIN",
    )
    sent = encode_problem_as_qp(sampler.solver, dict(model.linear), dict(model.quadratic), undirected_biases=True)
    found = decode_problem(sent, "ising", sampler.properties)
    back = dimod.BinaryQuadraticModel(
        dict(zip(found.qubits.tolist(), found.fields, strict=True)),
        {tuple(found.qubits[pair].tolist()): bias for pair, bias in zip(found.pairs, found.couplings, strict=True)},
        "SPIN",
    )
    assert back == model


def test_embedded_model_finds_its_ground_state(sampler):
    model = dimod.generators.ran_r(2, 10, seed=5)
    answer = EmbeddingComposite(sampler).sample(model, num_reads=100)
    assert answer.first.energy == dimod.ExactSolver().sample(model).first.energy


def test_chains_break_by_noise_alone():
    model = dimod.generators.ran_r(1, 12, seed=0)
    broken = []
    for noise in (Noise(0.02, 0.0, 0.0, 0.0), Noise(0.1, 0.0, 0.0, 0.05)):
        with LoopbackLeap(size=3, noise=noise) as leap, DWaveSampler(**leap.config) as sampler:
            answer = EmbeddingComposite(sampler).sample(model, num_reads=50, answer_mode="raw")
            broken.append(answer.record.chain_break_fraction.mean())
    assert broken[0] < 0.02 < broken[1]


def test_timing_is_what_the_client_predicts(sampler):
    qubit = sampler.nodelist[0]
    answer = sampler.sample_ising({qubit: 1.0}, {}, num_reads=100, annealing_time=50.0)
    predicted = sampler.solver.estimate_qpu_access_time(1, num_reads=100, annealing_time=50.0)
    assert answer.info["timing"]["qpu_access_time"] == pytest.approx(predicted, rel=0.006)


def test_ranges_are_refused_without_auto_scale(sampler):
    qubit = sampler.nodelist[0]
    with pytest.raises(SolverFailureError, match="h has values outside"):
        sampler.sample_ising({qubit: 99.0}, {}, auto_scale=False).resolve()
    assert sampler.sample_ising({qubit: 99.0}, {}).first.energy == -99.0


@pytest.mark.parametrize(
    "params",
    [
        {"annealing_time": 2000.0},
        {"annealing_time": 1999.0, "readout_thermalization": 500.0, "programming_thermalization": 5000.0},
    ],
    ids=len,
)
def test_a_job_runs_for_as_long_as_the_client_says_and_no_longer(sampler, params):
    fields, most = {sampler.nodelist[0]: 1.0}, sampler.solver.max_num_reads(**params)
    assert sampler.sample_ising(fields, {}, num_reads=most, **params).record.num_occurrences.sum() == most
    with pytest.raises(SolverFailureError, match=r"problem run duration must be from 0\.0 to 1000000\.0 microseconds"):
        sampler.sample_ising(fields, {}, num_reads=most + 1, **params).resolve()


def test_the_time_of_a_schedule_counts(sampler):
    edge = sampler.edgelist[0]
    schedule = [(0.0, 0.0), (1000.0, 1.0)]
    most = sampler.solver.max_num_reads(annealing_time=1000.0)
    sampler.sample_ising({}, {edge: 1.0}, num_reads=most, anneal_schedule=schedule).resolve()
    with pytest.raises(SolverFailureError, match="problem run duration"):
        sampler.sample_ising({}, {edge: 1.0}, num_reads=most + 1, anneal_schedule=schedule).resolve()


def test_answers_say_that_they_are_classical(leap, sampler):
    assert "classical" in leap.qpu["description"]
    assert sampler.sample_ising({sampler.nodelist[0]: 1.0}, {}).info["problem_id"].startswith("classical-")


def test_reverse_annealing_starts_from_the_state_given(sampler):
    rng = np.random.default_rng(0)
    state = dict(zip(sampler.nodelist, rng.choice([-1, 1], len(sampler.nodelist)).tolist(), strict=True))
    fields = dict.fromkeys(sampler.nodelist, 0.0)
    barely = [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]
    wells = {edge: -1.0 * state[edge[0]] * state[edge[1]] for edge in sampler.edgelist}  # the state and its mirror image
    for sign in (1, -1):
        start = {qubit: sign * spin for qubit, spin in state.items()}
        answer = sampler.sample_ising(fields, wells, num_reads=5, initial_state=start, anneal_schedule=barely)
        sample = answer.first.sample
        assert np.mean([sample[qubit] == start[qubit] for qubit in start]) > 0.9


def test_hybrid_solvers_keep_counts(leap):
    model = dimod.generators.ran_r(3, 12, seed=1).change_vartype("BINARY")
    with LeapHybridSampler(**leap.config) as hybrid:
        assert hybrid.sample(model).first.energy == pytest.approx(dimod.ExactSolver().sample(model).first.energy)
    constrained = dimod.ConstrainedQuadraticModel.from_bqm(model)
    constrained.add_constraint(dimod.BinaryQuadraticModel(dict.fromkeys(model.variables, 1), {}, 0, "BINARY"), "==", 4)
    with LeapHybridCQMSampler(**leap.config) as hybrid:
        answer = hybrid.sample_cqm(constrained)
    exact = dimod.ExactCQMSolver().sample_cqm(constrained)
    assert answer.first.is_feasible and sum(answer.first.sample.values()) == 4
    assert answer.first.energy == pytest.approx(exact.filter(lambda row: row.is_feasible).first.energy)


@pytest.mark.parametrize(
    ("fault", "error", "accepted"),
    [
        ("unauthorized", ResourceAuthenticationError, 0),
        ("too many requests", ResourceLimitsExceededError, 0),
        ("server error", InternalServerError, 0),
        ("unavailable", InternalServerError, 0),
        ("dropped before", Lost, 0),
        ("dropped after", Lost, 1),
        ("truncated", Exception, 1),
    ],
)
def test_faults_of_requests(leap, sampler, fault, error, accepted):
    data = encode_problem_as_qp(sampler.solver, {sampler.nodelist[0]: 1.0}, {})
    label = f"test {fault}"
    from dwave.cloud.api.models import ProblemJob

    job = ProblemJob(data=data, params={}, solver=sampler.solver.identity, type="ising", label=label)
    with Problems(endpoint=leap.endpoint, token=leap.token, retry={"total": 0}) as problems:
        leap.next_fault(fault)
        with pytest.raises(error):
            problems.submit_problems([job])
        assert leap.labels[label] == accepted
        assert len(problems.list_problems(label=label)) == accepted


def test_faults_of_jobs(leap, sampler):
    qubit = sampler.nodelist[0]
    leap.next_fault("failed job")
    with pytest.raises(SolverFailureError, match="the solver failed"):
        sampler.sample_ising({qubit: 1.0}, {}).resolve()
    with LoopbackLeap(size=2) as other, DWaveSampler(**other.config) as old:
        changed = other.change_graph()
        with pytest.raises(SolverFailureError, match=f"has the working graph {changed}"):
            old.sample_ising({old.nodelist[0]: 1.0}, {}).resolve()


def test_wrong_token_is_refused(leap):
    with pytest.raises((SolverAuthenticationError, ResourceAuthenticationError)):
        DWaveSampler(**{**leap.config, "token": "wrong"})


def test_rates_are_those_asked_for():
    from annealsubnet.testing.faults import REQUEST_FAULTS, Dice

    dice = Dice(Faults.everything(0.3, seed=2))
    thrown = [dice.of_request() for _ in range(5000)]
    assert np.mean([fault is not None for fault in thrown]) == pytest.approx(0.03 * len(REQUEST_FAULTS), abs=0.02)
    assert set(thrown) - {None} == set(REQUEST_FAULTS)


def test_faults_can_begin_later_and_come_in_the_order_of_their_seed():
    from annealsubnet.testing.faults import Dice

    faults = Faults.everything(0.3, seed=5)
    later = Dice(Faults())
    assert [later.of_request() for _ in range(50)] == [None] * 50
    later.begin(faults)
    at_once = Dice(faults)
    assert [later.of_request() for _ in range(50)] == [at_once.of_request() for _ in range(50)]
    assert sum(later.thrown.values()) > 3
