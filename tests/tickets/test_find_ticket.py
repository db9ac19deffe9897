"""find_ticket: exact counts, the same ticket again, resumed searches, and what it refuses."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet import evaluate
from annealsubnet.budgets import budget_of
from annealsubnet.examples import load, named_network
from annealsubnet.examples.architectures import CNN, MLP
from annealsubnet.losses import Loss, smoothed_cross_entropy, squared_error
from annealsubnet.networks import as_network, from_function
from annealsubnet.tickets import (
    Blocks,
    annealed,
    edge_popup,
    evidence,
    find_ticket,
    genetic,
    greedy_exchanges,
    initialize,
    latent_scores,
    random_masks,
    rounds,
    sampled,
    supermask,
)
from annealsubnet.tickets.progress import read_log
from annealsubnet.tickets.switches import Switches


def same(one, other):
    return all((one.kept[name] == other.kept[name]).all() for name in one.kept)


@pytest.mark.parametrize(
    "rule", [annealed(), sampled(), latent_scores(), edge_popup(), supermask()], ids=lambda rule: rule.name
)
def test_every_rule_keeps_exactly_what_was_asked_and_learns(case, rule):
    network, batches = case
    mask = find_ticket(network, batches, keep=0.5, passes=6, batch_size=20, rule=rule, seed=0)
    assert {name: int(kept.sum()) for name, kept in mask.kept.items()} == {"fc1": 768, "fc2": 120}
    random = np.random.default_rng(0).permuted(mask.kept["fc1"], axis=0)
    shuffled = type(mask).of(network, "weight", {"fc1": random, "fc2": mask.kept["fc2"]})
    assert evaluate(network, batches, mask).loss < evaluate(network, batches, shuffled).loss


def test_latent_scores_keep_their_count_when_many_of_them_are_clipped(case, monkeypatch):
    network, batches = case
    counts = []
    measure = Switches.mean_loss

    def counted(self, gates, *rest):
        jax.debug.callback(
            lambda values: counts.append({name: int(np.asarray(gate).sum()) for name, gate in values.items()}), gates
        )
        return measure(self, gates, *rest)

    monkeypatch.setattr(Switches, "mean_loss", counted)
    # Every score goes up by Adam's whole step as long as its gradient keeps its sign: many get to the clip.
    find_ticket(network, batches, keep=0.1, passes=8, batch_size=20, rule=latent_scores(step=0.2), seed=0)
    assert len(counts) == 160
    assert all(abs(count["fc1"] - 154) <= 2 and abs(count["fc2"] - 24) <= 1 for count in counts[1:])


@pytest.mark.parametrize("rule", [annealed(temperature=0), sampled(temperature=0)], ids=lambda rule: rule.name)
def test_temperature_zero_is_allowed(case, rule):
    network, batches = case
    mask = find_ticket(network, batches, keep=0.5, passes=40, batch_size=20, rule=rule, seed=0)
    assert evaluate(network, batches, mask).accuracy > 0.75


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_floats_have_tickets_too(dtype):
    rng = np.random.default_rng(0)
    params = {
        "c": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)) * 0.3, dtype)},
        "o": {"kernel": jnp.asarray(rng.normal(size=(256, 3)) * 0.1, dtype)},
    }

    def network(params, inputs, tap):
        return tap.dense("o", jax.nn.relu(tap.conv("c", inputs)).reshape(len(inputs), -1))

    model = from_function(network, params)
    images = jnp.asarray(rng.normal(size=(120, 8, 8, 2)), dtype)
    checks, batches = [], [(images, rng.integers(0, 3, 120))]
    mask = find_ticket(model, batches, keep=0.3, passes=4, batch_size=20, held_in=120, report=checks.append, seed=0)
    best = min(check.held_in_loss for check in checks)
    assert best == pytest.approx(evaluate(model, batches, mask).loss, rel=1e-5)
    assert np.float32(best) != np.asarray(best, dtype)  # judged in more digits than the network has


def test_weights_are_left_alone(case):
    network, batches = case
    before = {path: np.array(value) for path, value in network.params.items()}
    mask = find_ticket(network, batches, passes=1, batch_size=20, seed=0)
    found = mask.multiply(network.params)
    for path, value in before.items():
        assert (np.asarray(network.params[path]) == value).all()
        assert ((np.asarray(found[path]) == value) | (np.asarray(found[path]) == 0)).all()


@pytest.mark.parametrize(("keep", "scope"), [(0.1, "layer"), (7, "neuron"), (0.3, "network"), ({"fc1": 0.25}, "layer")])
def test_counts_of_every_scope(case, keep, scope):
    network, batches = case
    mask = find_ticket(network, batches, keep=keep, scope=scope, passes=1, batch_size=40, seed=0)
    if scope == "neuron":
        assert all((kept.sum(axis=0) == 7).all() for kept in mask.kept.values())
    else:
        wanted = {0.1: 178, 0.3: 533}.get(keep if isinstance(keep, float) else 0, 384)
        assert mask.kept_count == wanted


def test_free_counts_and_schedules(case):
    network, batches = case
    free = find_ticket(network, batches, price=0.0, passes=2, batch_size=20, seed=0)
    assert 0 < free.kept_count < free.size
    mask = find_ticket(network, batches, keep=0.1, keep_from=0.5, passes=2, batch_size=20, seed=0)
    assert mask.kept_count == 154 + 24


def test_neurons_and_convolutions():
    data, named = load("digits", seed=0), named_network("digits-cnn")
    batches = list(data.batches("train", 200, normalize=named.normalize, examples=200))
    model = CNN((8, 8, 1), channels=(4, 4), hidden=8, rngs=nnx.Rngs(0))
    model.eval()
    network = as_network(initialize(model, example=batches[0][0], seed=0), batches[0][0])
    neurons = find_ticket(network, batches, unit="neuron", keep=0.5, passes=1, batch_size=50, seed=0)
    assert {name: int(kept.sum()) for name, kept in neurons.kept.items()} == {"conv1": 2, "conv2": 2, "fc1": 4}
    weights = find_ticket(network, batches, keep=0.5, coupling=0.5, passes=1, batch_size=50, seed=0)
    assert all(2 * int(kept.sum()) == kept.size for kept in weights.kept.values())


def test_a_resumed_search_gives_the_same_ticket(case, tmp_path):
    network, batches = case
    options = {"passes": 2, "batch_size": 20, "seed": 3, "checks": 5}
    whole = find_ticket(network, batches, **options)
    path = tmp_path / "search.npz"

    def interrupt(check):
        if check.round >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_ticket(network, batches, report=interrupt, state_file=path, **options)
    checked = []
    resumed = find_ticket(network, batches, state_file=path, resume=True, report=lambda c: checked.append(c.round), **options)
    assert same(whole, resumed) and checked == [24, 32, 40]
    with pytest.raises(ValueError, match="other settings: seed"):
        find_ticket(network, batches, state_file=path, resume=True, **{**options, "seed": 4})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        find_ticket(network, batches, state_file=path, resume=True, **options)


@pytest.mark.parametrize("lived", [9, 14])
def test_a_killed_search_goes_on_from_the_round_that_was_written_last(case, lived, tmp_path, monkeypatch):
    network, batches = case
    options = {"passes": 2, "batch_size": 20, "seed": 3, "checks": 5, "state_file": tmp_path / "search.npz"}
    whole = find_ticket(network, batches, **options)
    original, done = evidence.stepper, []

    def mortal(*words):
        step = original(*words)

        def killed(progress, start):
            if progress.done == lived:
                raise SystemError
            done.append(progress.done)
            return step(progress, start)

        return killed

    monkeypatch.setattr(evidence, "stepper", mortal)
    monkeypatch.setattr(rounds, "UNWRITTEN_SECONDS", 0.0)
    with pytest.raises(SystemError):
        find_ticket(network, batches, **options)
    lived = -1
    assert same(whole, find_ticket(network, batches, resume=True, **options))
    assert done == list(range(40))


@pytest.mark.parametrize("place", ["measure", "predict"])
@pytest.mark.parametrize("which", [3, 5])
def test_an_interrupt_within_a_check_loses_none(case, place, which, tmp_path, monkeypatch):
    network, batches = case
    options = {"passes": 2, "batch_size": 20, "seed": 3, "checks": 5, "state_file": tmp_path / "search.npz"}
    logs = [], []
    whole = find_ticket(network, batches, report=lambda check: logs[0].append(check.held_in_loss), **options)
    original, calls = getattr(Switches, place), []

    def interrupted(*values):
        calls.append(values)
        if len(calls) == which:
            raise KeyboardInterrupt
        return original(*values)

    monkeypatch.setattr(Switches, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_ticket(network, batches, **options)
    monkeypatch.undo()
    resumed = find_ticket(network, batches, resume=True, **options)
    logs[1].extend(check.held_in_loss for check in read_log(options["state_file"]))
    assert same(whole, resumed) and logs[0] == logs[1]


@pytest.mark.parametrize(
    ("setting", "other"),
    [
        ("keep", {"keep": {"fc1": 744, "fc2": 144}}), ("scope", {"scope": "network", "keep": 888}),
        ("loss", {"loss": smoothed_cross_entropy(0.3)}), ("held_in", {"held_in": 7}),
        ("augment", {"augment": lambda inputs, generator: inputs}), ("examples", {}), ("weights", {}),
        ("rule's update", {"rule": edge_popup(momentum=0.1)}), ("rule's update", {"rule": edge_popup(decay=0.1)}),
    ],
)  # fmt: skip
def test_a_search_is_gone_on_with_as_it_was_begun(case, setting, other, tmp_path):
    network, batches = case
    options = {"passes": 1, "batch_size": 20, "seed": 3, "checks": 2, "state_file": tmp_path / "search.npz"}
    options |= {"rule": edge_popup()} if "rule" in other else {}
    find_ticket(network, batches, **options)
    assert " at 0x" not in str(np.load(options["state_file"])["header"])
    if setting == "examples":
        batches = [(inputs[::-1], labels) for inputs, labels in batches]
    if setting == "weights":
        network = network.replace(network.model.export({path: -value for path, value in network.params.items()}))
    said = {"keep": "counts", "scope": "scope"}.get(setting, setting)
    with pytest.raises(ValueError, match=rf"other settings: .*{said}"):
        find_ticket(network, batches, resume=True, **{**options, **other})


@pytest.mark.parametrize(
    "options",
    [
        {
            "batch_size": np.int64(20), "checks": np.int64(2), "held_in": np.int64(50), "keep": {"fc1": np.int64(700)},
            "keep_from": np.float32(0.75), "rule": sampled(step=np.float32(0.25)),
        },
        {"price": np.float32(0)}, {"coupling": np.float32(0.5)},
    ],
)  # fmt: skip
def test_numbers_of_numpy_are_saved_as_the_numbers_they_are(case, options, tmp_path):
    network, batches = case
    saved = {"passes": 0.5, "seed": 0, "state_file": tmp_path / "search.npz"}
    mask = find_ticket(network, batches, **saved, **options)
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    plain |= {"rule": sampled(step=0.25)} if "rule" in options else {}
    assert same(mask, find_ticket(network, batches, resume=True, **saved, **plain))


def test_rules_made_alike_are_equal_and_compiled_once(case):
    network, batches = case
    for make in (annealed, sampled, latent_scores, edge_popup, supermask):
        assert make() == make() and make() != make(step=0.01)
        find_ticket(network, batches, passes=0.1, batch_size=20, rule=make(), seed=0)
        known = len(network.programs)
        find_ticket(network, batches, passes=0.1, batch_size=20, rule=make(), seed=1)
        assert len(network.programs) == known


def test_no_layer_is_left_without_units(case):
    network, batches = case
    with pytest.raises(ValueError, match=r"No unit of 'fc1' is kept at the start, .* lower the price"):
        find_ticket(network, batches, price=1.0, seed=0)
    with pytest.raises(ValueError, match=r"No unit of 'fc\d' is kept at the start, .* keep more units"):
        find_ticket(network, batches, keep=1, scope="network", seed=0)
    with pytest.raises(ValueError, match="keeps no unit of"):
        random_masks(network, batches, keep=1, scope="network", evaluations=3, seed=0)


def test_labels_that_are_no_integers_have_no_accuracy(case):
    network, batches = case
    budget = budget_of(network, keep=0.5, unit="weight", scope="layer")
    loss = Loss("distance to a number", lambda outputs, labels: (outputs[:, 0] - labels) ** 2, squared_error.curvature_factor)
    gates = {name: np.ones(shape) for name, shape in budget.shapes.items()}
    measured = [Switches(network, budget, loss).measure(gates, inputs, labels * 1.0) for inputs, labels in batches]
    assert all(np.isfinite(loss) and np.isnan(accuracy) for loss, accuracy in measured)


def test_checks_say_what_was_predicted_and_what_came(case):
    network, batches = case
    checks = []
    find_ticket(network, batches, passes=3, batch_size=20, checks=6, held_in=100, seed=0, report=checks.append)
    assert [check.round for check in checks] == [10, 20, 30, 40, 50, 60]
    assert all(check.seen == 20 * check.round for check in checks)
    assert all(check.read == 2 * check.seen + 100 + 300 * (n + 1) for n, check in enumerate(checks))
    losses = [check.held_in_loss for check in checks]
    np.testing.assert_allclose(np.diff(losses), [check.actual for check in checks][1:], rtol=1e-5, atol=1e-7)
    assert checks[0].predicted_linear < 0 and checks[0].actual < 0


def test_bad_input_is_refused_in_words(case, tmp_path):
    network, batches = case
    inputs, labels = batches[0]
    with pytest.raises(ValueError, match="labels are needed"):
        find_ticket(network, [inputs], seed=0)
    with pytest.raises(ValueError, match="All 400 labels are 3"):
        find_ticket(network, [(inputs, np.full_like(labels, 3))], seed=0)
    with pytest.raises(ValueError, match="leaves none"):
        find_ticket(network, batches, keep=1e-6, seed=0)
    huge = network.replace(network.model.export({path: value * 1e30 for path, value in network.params.items()}))
    for search in (find_ticket, partial(find_ticket, rule=Blocks()), random_masks, genetic, greedy_exchanges):
        with pytest.raises(ValueError, match="rescale the weights"):
            search(huge, batches, seed=0)
    with pytest.raises(ValueError, match="The loss became nan before round 1: lower step"):
        find_ticket(network, batches, passes=0.1, augment=lambda inputs, generator: inputs * np.nan, checks=1, seed=0)
    with pytest.raises(ValueError, match=r"examples of shape \(3,\); the network takes"):
        find_ticket(network, [(inputs[:, :3, 0, 0], labels)], seed=0)
    for name in ("batch_size", "checks", "held_in"):
        with pytest.raises(TypeError, match=f"{name} must be a whole number; it is 20.0"):
            find_ticket(network, batches, seed=0, **{name: 20.0})
    for search in (find_ticket, random_masks, initialize):
        with pytest.raises(ValueError, match="seed must be at least 0; it is -1"):
            search(network, *([] if search is initialize else [batches]), seed=-1)
    for wrong in (
        {"batch_size": 0},
        {"held_in": 0},
        {"state_file": tmp_path},
        {"passes": 0},
        {"checks": 0},
        {"coupling": -1.0},
        {"coupling": 1.0, "unit": "neuron"},
        {"resume": True},
        {"coupling": np.nan},
        {"coupling": 1.0, "rule": edge_popup()},
        {"keep_from": 0.1},
        {"keep_from": 0.9, "rule": supermask()},
        {"passes": np.inf},
    ):
        with pytest.raises(ValueError, match=r"; | needs "):
            find_ticket(network, batches, seed=0, **wrong)


def test_initializations_have_the_right_deviation():
    model = MLP((50,), (400, 10), rngs=nnx.Rngs(0))
    inputs = np.zeros((1, 50), np.float32)
    for scheme in ("signed-constant", "kaiming-normal"):
        kernel = np.asarray(initialize(model, scheme, keep=0.25, example=inputs, seed=1).fc1.kernel[...])
        assert kernel.std() == pytest.approx(np.sqrt(2 / (0.25 * 50)), rel=0.03)
    with pytest.raises(ValueError, match="scheme"):
        initialize(model, "ones", example=inputs, seed=0)
    assert jax.devices()


_THREADS = """
import numpy as np
import jax
from annealsubnet.examples.ticket_networks import ticket_network
from annealsubnet.tickets import annealed, find_ticket, initialize
from annealsubnet.tickets.rules import Clock
rng = np.random.default_rng(0)
batches = [(rng.normal(size=(500, 28, 28, 1)).astype(np.float32), rng.integers(0, 10, 500))]
model = initialize(ticket_network("lenet-300-100").build(seed=0), keep=0.5, example=batches[0][0], seed=0)
mask = find_ticket(model, batches, passes=4, seed=0)
print("".join(np.packbits(kept).tobytes().hex() for kept in mask.kept.values()))
slope = {"fc1": rng.normal(size=(784, 300)).astype(np.float32)}
state = {"scores": slope, "mean": slope, "square": {"fc1": np.float32(0)}}
state = jax.jit(annealed().update)(state, slope, Clock(np.float32(1), np.float32(1), np.float32(1)))
print(np.asarray(state["scores"]["fc1"]).tobytes().hex()[::64], float(state["square"]["fc1"]).hex())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_one_thread_finds_the_ticket_that_two_find():
    cores = sorted(os.sched_getaffinity(0))
    answers = set()
    for count in (1, 2):
        code = f"import os; os.sched_setaffinity(0, {cores[:count]})\n{_THREADS}"
        answers.add(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert len(answers) == 1 and len(answers.pop()) > 1000
