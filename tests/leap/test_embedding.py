"""Laws of embeddings: valid on the working graph, found again on disk, disjoint in a packing, nothing dropped."""

import itertools
import json
import re

import numpy as np
import pytest
import scipy.sparse

dwave_graphs = pytest.importorskip("dwave.graphs")

from dwave.embedding import verify_embedding  # noqa: E402

from annealsubnet.decompose import Limits, decompose  # noqa: E402
from annealsubnet.decompose.chains import clique_chains  # noqa: E402
from annealsubnet.leap.cliques import place_cliques, reach_of  # noqa: E402
from annealsubnet.leap.embedding import CannotEmbed, EmbeddingCache, couplings_of, embed, verified  # noqa: E402
from annealsubnet.leap.lattice import lattice_of  # noqa: E402
from annealsubnet.leap.packing import pack, pack_jobs  # noqa: E402
from annealsubnet.leap.shape_kernels import NONE, SCALE, cheapest_shapes, follow  # noqa: E402
from annealsubnet.leap.templates import clique_chains_on  # noqa: E402
from annealsubnet.leap.working_graphs import working_graph  # noqa: E402
from annealsubnet.problems import Problem  # noqa: E402


def clique(size):
    return Problem(np.zeros(size), np.ones((size, size)) - np.eye(size))


def ring(size, reach=1):
    pairs = [(i, (i + step) % size) for i in range(size) for step in range(1, reach + 1)]
    rows, columns = np.array(pairs).T
    upper = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    return Problem(np.zeros(size), scipy.sparse.csr_array(upper + upper.T))


def damaged(topology, rows, share, seed=0):
    """A working graph with missing qubits, and a few missing couplers."""
    graph = {"zephyr": dwave_graphs.zephyr_graph, "pegasus": dwave_graphs.pegasus_graph}[topology](rows)
    rng = np.random.default_rng(seed)
    nodes = sorted(graph)
    graph.remove_nodes_from([nodes[index] for index in rng.choice(len(nodes), int(share * len(nodes)), replace=False)])
    edges = sorted(graph.edges)
    graph.remove_edges_from([edges[index] for index in rng.choice(len(edges), 5, replace=False)])
    return working_graph(graph)


def checked(problem, embedding, target):
    source = {tuple(pair) for pair in couplings_of(problem).pairs.tolist()}
    verify_embedding(embedding.mapping(), source, target.graph)
    qubits = [qubit for chain in embedding.chains for qubit in chain]
    assert len(embedding.chains) == problem.size and all(embedding.chains)
    assert len(qubits) == len(set(qubits)) == embedding.num_qubits
    return set(qubits)


TARGETS = [damaged("zephyr", 3, 0.02), damaged("pegasus", 4, 0.02)]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize(
    "problem", [clique(1), clique(2), clique(12), ring(30), ring(20, 2), Problem(np.zeros(3), np.zeros((3, 3)))]
)
def test_embeddings_are_valid(problem, target):
    assert len(checked(problem, embed(problem, target, seed=0, time_limit=5.0), target)) >= problem.size


@pytest.mark.parametrize("size", range(1, 25))
def test_cliques_embed_on_a_whole_graph(size):
    """All of these sizes once ran away on some whole graph, when busclique was asked without its cache."""
    target = working_graph(dwave_graphs.zephyr_graph(2))
    assert len(checked(clique(size), embed(clique(size), target, seed=0, time_limit=5.0), target)) >= size


@pytest.mark.parametrize("size", [2, 4, 8, 16, 24])
def test_templates_on_a_whole_graph_have_chains_as_short_as_the_table_says(size):
    target = working_graph(dwave_graphs.zephyr_graph(3))
    chains = clique_chains_on(target, size, seed=0)
    assert chains is not None and verified(chains, couplings_of(clique(size)), target)
    assert max(map(len, chains)) <= (clique_chains(size) or 0)


def test_what_is_left_of_a_used_up_graph_harms_nothing():
    """Asked for a clique on qubits that are hardly coupled, busclique ends its process; ours goes on."""
    target = TARGETS[0]
    rest = working_graph(target.graph.subgraph(sorted(target.graph)[::9]).copy())
    assert clique_chains_on(rest, 30, seed=0) is None
    assert clique_chains_on(rest, 10**4, seed=0) is None
    assert clique_chains_on(target, 60, seed=0, time_limit=0.05) is None  # no answer in time is no answer


def test_parts_of_a_problem_embed():
    found = decompose(ring(60, 2), Limits(variables=20, chain_length=3), seed=0)
    for part in found.parts(np.zeros(60)):
        embedding = embed(part, TARGETS[0], seed=1, time_limit=5.0)
        assert len(checked(part.problem, embedding, TARGETS[0])) >= part.size


def test_what_cannot_embed_is_named_with_limits_that_fit():
    with pytest.raises(CannotEmbed, match=r"layer:3 with 120 variables.*Limits\(variables=\d+\)") as caught:
        embed(clique(120), TARGETS[0], seed=0, time_limit=0.5, name="layer:3")
    advised = int(re.search(r"variables=(\d+)", str(caught.value)).group(1))
    assert advised > 24
    checked(clique(advised), embed(clique(advised), TARGETS[0], seed=0, time_limit=0.5), TARGETS[0])


def test_a_cached_embedding_is_used_and_validated_when_the_graph_changes(tmp_path):
    cache, problem, target = EmbeddingCache(tmp_path), clique(10), TARGETS[0]
    first = embed(problem, target, seed=0, cache=cache)
    assert embed(problem, target, seed=0, cache=cache) == first
    file = next(tmp_path.glob("*.json"))
    assert json.loads(file.read_text())["graph_id"] == target.graph_id
    graph = target.graph.copy()
    graph.remove_node(first.chains[0][0])
    smaller = working_graph(graph)
    assert smaller.graph_id != target.graph_id
    again = embed(problem, smaller, seed=0, cache=cache)
    checked(problem, again, smaller)
    file.write_text("half of a fi")
    checked(problem, embed(problem, target, seed=0, cache=cache), target)


@pytest.mark.parametrize("problem", [clique(6), ring(30)], ids=["clique", "ring"])
def test_a_cached_embedding_that_is_none_is_not_believed(tmp_path, problem):
    cache, target = EmbeddingCache(tmp_path), TARGETS[0]
    qubits = sorted(target.graph)[: problem.size]
    cache.store(couplings_of(problem).key, target.topology, target.graph_id, [[qubit] for qubit in qubits], "minorminer")
    checked(problem, embed(problem, target, seed=0, cache=cache), target)
    cache.store(couplings_of(problem).key, target.topology, target.graph_id, [[qubit] for qubit in qubits], "minorminer")
    found = pack([problem], target, seed=0, cache=cache)
    assert found == pack([problem], target, seed=0)
    checked(problem, found.embedding_of(0), target)


@pytest.mark.parametrize("make", [dwave_graphs.zephyr_graph, dwave_graphs.pegasus_graph])
def test_graphs_of_coordinates_are_refused(make):
    with pytest.raises(ValueError, match="qubits must be numbers; make the graph without coordinates"):
        embed(clique(4), make(3, coordinates=True), seed=0)


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = embed(clique(4), TARGETS[0], seed=0, cache=EmbeddingCache(blocked / "folder"))
    assert found == embed(clique(4), TARGETS[0], seed=0) and blocked.read_text() == ""


def orders(blocks):
    """All orders of 0 … blocks − 1 of which every first few are an interval."""
    for turns in itertools.product((False, True), repeat=blocks - 1):
        left = right = sum(not turn for turn in turns)
        order = [left]
        for turn in turns:
            left, right = (left, right + 1) if turn else (left - 1, right)
            order.append(right if turn else left)
        yield order


def shape_cost(lattice, reach, columns, rows, size):
    """Qubits of the cheapest clique of a shape, one run at a time; `columns` and `rows` of its blocks in order."""
    increments = []
    for block, (column, row) in enumerate(zip(columns, rows, strict=True)):
        runs = []
        for u, line, covered in ((0, column, rows[block:]), (1, row, columns[: block + 1])):
            low, high = min(covered), max(covered)
            places = [
                track[low : high + 1]
                for track, last in zip(lattice.qubits[u, line], reach[u, line], strict=True)
                if last[low] >= high
            ]
            runs.append(sorted(len(set(qubits.tolist())) for qubits in places))
        increments += [sum(pair) for pair in zip(*runs, strict=False)]
    return sum(sorted(increments)[:size]) if len(increments) >= size else None


@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
def test_shapes_are_the_cheapest_of_all(target, blocks):
    lattice = lattice_of(target)
    there = np.random.default_rng(0).random(lattice.qubits.shape[:3]) < 0.97
    usable = (lattice.qubits >= 0) & there[..., None]
    reach, lines, tracks = reach_of(lattice, usable), lattice.qubits.shape[1], lattice.tracks
    passed_over = int(0.3 * blocks * tracks)
    size, window = blocks * tracks - passed_over, (1, min(lines, 9), 0, min(lines, 8))
    least = {}
    for left, low in itertools.product(range(1, window[1] - blocks + 1), range(window[3] - blocks + 1)):
        for columns, rows in itertools.product(orders(blocks), orders(blocks)):
            at = [left + column for column in columns], [low + row for row in rows[::-1]]
            cost = shape_cost(lattice, reach, *at, size)
            if cost is not None:
                least[left, at[1][-1]] = min(cost, least.get((left, at[1][-1]), cost))
    codes = np.zeros((blocks, lines, lines + 1, passed_over + 1), np.int8)
    ends = np.zeros((lines, lines), np.int32)
    work = [np.zeros((lines, lines, tracks + 1), np.int32) for _ in range(2)]
    work += [np.zeros((lines + 1, lines + 1, passed_over + 1), np.int32) for _ in range(2)]
    noise = np.zeros((2, lines), np.int64)
    cheapest_shapes(lattice.number, reach, noise, blocks, passed_over, window, codes, ends, tuple(work))
    inside = ends[window[0] : window[1], window[2] : window[3]]
    found = {(x + window[0], row): int(cost) // SCALE for (x, row), cost in np.ndenumerate(inside) if cost < NONE}
    assert found == least and least
    for (x, row), cost in found.items():
        chains = np.zeros((size, 8), np.int64)
        assert follow(lattice.number, reach, blocks, passed_over, codes, x, row, chains) == cost
        for one, other in itertools.combinations(chains.tolist(), 2):
            crossings = ((one, other), (other, one))
            assert any(a[2] <= b[4] <= a[3] and b[6] <= a[0] <= b[7] for a, b in crossings)


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_the_lattice_holds_the_graph(target):
    lattice = lattice_of(target)
    held = set(np.unique(lattice.qubits).tolist()) - {-1}
    assert held <= set(target.graph) and len(held) >= len(target.graph) - 5
    lines = lattice.qubits.shape[1]
    for x in range(lines):
        for y in range(lines):
            vertical, horizontal = lattice.qubits[0, x, :, y], lattice.qubits[1, y, :, x]
            for one in vertical[vertical >= 0].tolist():
                assert all(target.graph.has_edge(one, other) for other in horizontal[horizontal >= 0].tolist())


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_cliques_of_mixed_sizes_are_disjoint_and_valid(target):
    sizes = [12, 7, 3, 1, 12, 9, 30, 2, 5]
    found = place_cliques(target, set(target.graph), sizes, seed=0, rounds=25, time_limit=10.0)
    used = set()
    for index, chains in found.items():
        assert len(chains) == sizes[index]
        assert verified(chains, couplings_of(clique(sizes[index])), target)
        qubits = {qubit for chain in chains for qubit in chain}
        assert not qubits & used
        used |= qubits


def test_annealing_a_packing_gains_cliques_and_never_costs_one():
    def placed(target, rounds):
        return len(place_cliques(target, set(target.graph), [5] * 60, seed=0, rounds=rounds, time_limit=60.0))

    first, few, many = ([placed(target, rounds) for target in TARGETS] for rounds in (0, 25, 200))
    assert all(np.greater_equal(few, first)) and all(np.greater_equal(many, first)) and sum(many) > sum(first)


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_a_packing_accounts_for_every_part(target):
    parts = [clique(12), ring(30), clique(3), ring(16, 2), clique(1), clique(200), Problem(np.zeros(0), np.zeros((0, 0)))] * 2
    packing = pack(parts, target, seed=0, time_limit=60.0)
    indices = [index for index, _ in packing.placed]
    assert sorted([*indices, *packing.left_out]) == list(range(len(parts))) and 5 in packing.left_out
    used = set()
    for index, embedding in packing.placed:
        qubits = checked(parts[index], embedding, target)
        assert not qubits & used
        used |= qubits
        assert packing.embedding_of(index) is embedding
    again = pack(parts, target, seed=0, time_limit=60.0)
    assert again == packing


@pytest.mark.parametrize(
    "parts",
    [[], [ring(20)], [ring(20)] * 3, [Problem(np.zeros(0), np.zeros((0, 0)))], [Problem(np.zeros(5), np.zeros((5, 5)))]],
    ids=["nothing", "one ring", "rings", "empty", "uncoupled"],
)
def test_parts_without_a_clique_are_packed(parts):
    for packing in (pack(parts, TARGETS[0], seed=0), *pack_jobs(parts, TARGETS[0], seed=0)):
        assert packing.left_out == ()
        for index, embedding in packing.placed:
            checked_or_empty = embedding.chains or parts[index].size == 0
            assert checked_or_empty and verified(embedding.chains, couplings_of(parts[index]), TARGETS[0])


def test_a_packing_cut_short_is_not_kept(tmp_path):
    cache = EmbeddingCache(tmp_path)
    parts = [clique(9)] * 60
    pack(parts, TARGETS[0], seed=0, time_limit=0.0, cache=cache)
    assert not list(tmp_path.glob("*cliques*"))
    pack([clique(size) for size in range(2, 60)], TARGETS[0], seed=0, cache=cache)
    assert all(len(path.name) < 250 for path in tmp_path.iterdir()) and list(tmp_path.glob("*cliques*"))


def test_zephyr_graphs_that_no_qpu_has_are_refused():
    with pytest.raises(ValueError, match="tile parameter of 4, as all QPUs have; it is 2"):
        working_graph(dwave_graphs.zephyr_graph(3, 2))


def test_jobs_hold_all_parts():
    parts = [clique(12), ring(20), clique(16), clique(8)] * 5
    jobs = pack_jobs(parts, TARGETS[0], seed=0, time_limit=10.0)
    assert sorted(index for job in jobs for index, _ in job.placed) == list(range(len(parts)))
    assert len(jobs) < 5 and jobs[-1].left_out == ()
    with pytest.raises(CannotEmbed, match="part 1 "):
        pack_jobs([clique(3), clique(150)], TARGETS[0], seed=0, time_limit=0.5)
    assert pack_jobs([], TARGETS[0], seed=0) == ()


def test_a_cached_packing_is_the_same(tmp_path):
    parts = [clique(9), clique(4)] * 30
    first = pack(parts, TARGETS[0], seed=3, cache=EmbeddingCache(tmp_path))
    assert list(tmp_path.glob("*cliques*"))
    assert pack(parts, TARGETS[0], seed=3, cache=EmbeddingCache(tmp_path)) == first == pack(parts, TARGETS[0], seed=3)


def test_working_graphs_from_properties():
    target = TARGETS[1]
    properties = {
        "topology": {"type": "pegasus", "shape": [4]},
        "qubits": sorted(target.graph),
        "couplers": [list(edge) for edge in target.graph.edges],
    }
    found = working_graph(properties)
    same = {frozenset(edge) for edge in found.graph.edges} == {frozenset(edge) for edge in target.graph.edges}
    assert same and found.graph_id == target.graph_id
    assert working_graph(properties | {"graph_id": "01dd"}).graph_id == "01dd"
    with pytest.raises(ValueError, match="chimera"):
        working_graph(dwave_graphs.chimera_graph(2))
    with pytest.raises(TypeError, match="int"):
        working_graph(3)
    with pytest.raises(TypeError, match="Part or a Problem"):
        couplings_of(3)
