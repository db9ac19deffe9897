"""The decomposer against its peers: speed and quality of parts, solutions by parts, packing, predicted chains.

    python benchmarks/decompose.py --out out/decompose [--quick] [--sections parts million solutions packing templates chains]

- parts: 10,000 variables of degree 8 into parts of 64 (all arrays, boundary folded in), in turns with dwave-hybrid's
  EnergyImpactDecomposer (energy and pfs traversal, time a part) and pymetis (share of the coupling weight inside parts);
- million: seconds and peak memory of a process of its own that decomposes 10^6 variables;
- solutions: energy by parts of 64 against the undecomposed annealing (16 reads of 1000 sweeps), with a count, and with a price
  in its place, where dwave-hybrid's reference workflows (their QPU branch left out or replaced by annealing) get the same time;
- packing: disjoint K24 on working graphs with 1 % defects against find_sublattice_embeddings and find_multiple_embeddings,
  and how full mixed sizes make the graph compared with the best single size;
- templates: the longest chain of one clique against busclique's;
- chains: predicted and found longest chain of parts of real problems (with --unseen of networks it was not fitted to).

Rows that are in the folder already are not measured again. Needs annealsubnet[leap,benchmarks].
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from decompose_problems import GRAPHS, counted, lattice, real_problems, unseen_problems, with_price
from rows import Rows, settle

from annealsubnet.decompose import Limits, decompose, predict_chains, solve_by_parts
from annealsubnet.decompose.summary import share_inside
from annealsubnet.neighborhoods import strongest
from annealsubnet.problems import Problem, sparsify
from annealsubnet.solvers import solve

PART = 64
Row = dict[str, Any]


def measured(rows: Rows, keys: Row, measure: Callable[[], Row]) -> None:
    """Measure the row with these keys if it isn't there."""
    if any(all(row[key] == str(value) for key, value in keys.items()) for row in rows.read()):
        return
    row = {name: str(value) for name, value in (keys | measure()).items()}
    rows.append(row)
    print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


def metis_share(problem: Problem) -> tuple[float, int, float]:
    """Share of the coupling weight that pymetis keeps inside as many parts, its largest part, and its seconds."""
    try:
        import pymetis
    except ImportError:
        return float("nan"), 0, float("nan")
    rows = problem.couplings
    strengths = np.maximum(1, np.round(1000 * np.abs(rows.data))).astype(int)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, member = pymetis.part_graph(-(-problem.size // PART), xadj=rows.indptr, adjncy=rows.indices, eweights=strengths)
    seconds = time.perf_counter() - start
    member = np.array(member)
    first = np.repeat(np.arange(problem.size), np.diff(rows.indptr))
    inside = member[first] == member[rows.indices]
    return float(np.abs(rows.data[inside]).sum() / np.abs(rows.data).sum()), int(np.bincount(member).max()), seconds


def hybrid_parts(problem: Problem, traversal: str, count: int) -> tuple[float, float]:
    """Seconds a part of dwave-hybrid's decomposer, and the mean coupling weight inside its first parts."""
    import hybrid

    bqm = problem.to_bqm()
    decomposer = hybrid.EnergyImpactDecomposer(size=PART, traversal=traversal, rolling_history=1.0)
    state = hybrid.State.from_sample(hybrid.min_sample(bqm), bqm)
    couplings, weights, seconds = problem.couplings, [], []
    for _ in range(count):
        start = time.perf_counter()
        state = decomposer.run(state).result()
        seconds.append(time.perf_counter() - start)
        members = np.array([int(variable) for variable in state.subproblem.variables])
        weights.append(float(np.abs(couplings[members][:, members]).sum()) / 2)
    return float(np.median(seconds)), float(np.mean(weights))


def parts(rows: Rows, *, quick: bool) -> None:
    """Speed and quality of parts, in turns with the peers."""
    for graph, make in GRAPHS.items():
        for turn in range(1 if quick else 3):
            measured(
                rows,
                {"graph": graph, "turn": turn},
                lambda make=make, turn=turn: measure_parts(make(10_000, turn), turn, quick),
            )


def measure_parts(problem: Problem, turn: int, quick: bool) -> Row:
    state = np.random.default_rng(turn).random(problem.size) < 0.5
    decompose(problem, Limits(variables=PART), seed=0).parts(state)
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        found = decompose(problem, Limits(variables=PART), seed=turn)
        found.parts(state)
        seconds.append(time.perf_counter() - start)
    total = float(np.abs(problem.couplings.data).sum()) / 2
    row = {"seconds": float(np.median(seconds)), "parts": len(found), "largest": int(found.sizes.max())}
    row |= {"share": share_inside(found), "weight_a_part": share_inside(found) * total / len(found)}
    row["metis_share"], row["metis_largest"], row["metis_seconds"] = metis_share(problem)
    for traversal in ("energy", "pfs"):
        each, weight = hybrid_parts(problem, traversal, 2 if quick else 8)
        row |= {f"{traversal}_seconds_a_part": each, f"{traversal}_weight_a_part": weight}
        row[f"{traversal}_speedup"] = each / (row["seconds"] / row["parts"])
    return row


def million(rows: Rows, *, quick: bool) -> None:
    """Time and memory of 10^6 variables (10^5 in a quick run), in a process of its own."""
    count = 10**5 if quick else 10**6

    def measure() -> Row:
        command = [sys.executable, __file__, "--decompose", str(count)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    measured(rows, {"variables": count}, measure)


def decompose_here(count: int) -> Row:
    decompose(lattice(400, 0), Limits(variables=PART), seed=0)
    problem = lattice(count, 0)
    start = time.perf_counter()
    found = decompose(problem, Limits(variables=PART), seed=0)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "parts": len(found), "share": share_inside(found), "peak_gib": peak}


def qbsolv(bqm: Any, seconds: float) -> float:
    """dwave-hybrid's SimplifiedQbsolv with annealing in place of its QPU branch."""
    import hybrid

    branch = hybrid.EnergyImpactDecomposer(size=PART, rolling=True, rolling_history=0.15)
    branch = branch | hybrid.SimulatedAnnealingSubproblemSampler() | hybrid.SplatComposer()
    race = hybrid.Race(hybrid.InterruptableTabuSampler(), branch) | hybrid.ArgMin() | hybrid.TrackMin(output=True)
    return _hybrid_energy(hybrid.Loop(race, max_time=seconds), bqm)


def kerberos(bqm: Any, seconds: float) -> float:
    """dwave-hybrid's Kerberos without its QPU branch."""
    import hybrid

    tabu = hybrid.InterruptableTabuSampler(timeout=max(20, int(500 * min(1.0, seconds))))
    annealing = hybrid.InterruptableSimulatedAnnealingProblemSampler(num_reads=1, num_sweeps=10_000)
    race = hybrid.Race(hybrid.BlockingIdentity(), tabu, annealing) | hybrid.ArgMin()
    return _hybrid_energy(hybrid.Loop(race, max_time=seconds), bqm)


def _hybrid_energy(workflow: Any, bqm: Any) -> float:
    import hybrid

    state = workflow.run(hybrid.State.from_sample(hybrid.min_sample(bqm), bqm)).result()
    return float(state.samples.first.energy)


def solutions(rows: Rows, *, quick: bool, seed: int) -> None:
    """Energies by parts against the whole, and against dwave-hybrid in the same time."""
    for name, problem in real_problems(2 if quick else 4, seed, quick=quick, large=True):
        for kind, form in (("count", counted), ("price", with_price)):
            keys = {"problem": name, "variables": problem.size, "kind": kind}
            measured(rows, keys, partial(measure_solution, form(problem), seed, quick))


def measure_solution(problem: Problem, seed: int, quick: bool) -> Row:
    """Both energies with their times; where no count is asked, those of dwave-hybrid, and ours in the time that it took.

    dwave-hybrid is asked for the time that the parts took, but its loops end late; so the parts get its time once more, and
    a quarter of it.
    """
    effort = {"num_reads": 4, "num_sweeps": 100} if quick else {"num_reads": 16, "num_sweeps": 1000}
    start = time.perf_counter()
    whole = float(solve(problem, seed=seed, **effort).energies[0])
    between = time.perf_counter()
    found = solve_by_parts(problem, Limits(variables=16 if quick else PART), seed=seed)
    seconds = time.perf_counter() - between
    row = {"whole": whole, "parts": found.energy, "gap": (found.energy - whole) / abs(whole)}
    row |= {"seconds_whole": between - start, "seconds_parts": seconds}
    for peer, run in (("qbsolv", qbsolv), ("kerberos", kerberos)):
        columns = (f"parts_{peer}", f"quarter_{peer}")
        row |= {peer: "", f"seconds_{peer}": ""} | {name: "" for own in columns for name in (own, f"seconds_{own}")}
        if problem.num_kept is None:
            start = time.perf_counter()
            row[peer] = run(problem.to_bqm(), seconds)
            row[f"seconds_{peer}"] = spent = time.perf_counter() - start
            for share, column in zip((1.0, 0.25), columns, strict=True):
                again = {"restarts": 10**6, "time_limit": share * spent}
                start = time.perf_counter()
                row[column] = solve_by_parts(problem, Limits(variables=PART), seed=seed, **again).energy
                row[f"seconds_{column}"] = time.perf_counter() - start
    return row


def chains(rows: Rows, *, quick: bool, seed: int, unseen: bool) -> None:
    """Predicted against found longest chains of parts of real problems, bounded in degree."""
    from annealsubnet.leap.working_graphs import working_graph

    rng = np.random.default_rng(seed + 1)
    problems = unseen_problems(6, seed + 1) if unseen else real_problems(2 if quick else 6, seed + 1, quick=quick)
    targets = {topology: working_graph(make()) for topology, make in chips(small=quick).items()}
    for number in range(6 if quick else 200):
        name, problem = problems[number % len(problems)]
        topology = ("zephyr", "pegasus")[number % 2]
        degree, variables = int(rng.choice([4, 6, 8, 12, 1000])), int(rng.choice([16, 24, 32, 48, 64, 96]))
        limits = Limits(variables=min(variables, 40) if degree == 1000 else variables, topology=topology)
        keys = {"number": number, "topology": topology, "problem": name}
        measured(rows, keys, partial(measure_chains, problem, degree, limits, targets[topology], number))


def measure_chains(problem: Problem, degree: int, limits: Limits, target: Any, seed: int) -> Row:
    """The longest chain predicted and found for the largest part of a problem of bounded degree; 0 where none was found."""
    from annealsubnet.leap.embedding import CannotEmbed, embed

    edges = strongest(problem.dense_couplings, degree=degree)
    sparse = sparsify(problem, edges, at=np.zeros(problem.size, bool)).problem
    found = decompose(sparse, limits, seed=seed)
    part = found.part(int(found.sizes.argmax()), np.zeros(problem.size))
    predicted = predict_chains(part.rows, part.columns, topology=limits.topology)
    try:
        length = embed(part, target, seed=seed, time_limit=20.0).chain_length
    except CannotEmbed:
        length = 0
    row = {"degree": degree, "variables": part.size, "couplings": part.values.size // 2, "method": predicted.method}
    return row | {"treewidth": predicted.treewidth, "predicted": predicted.length, "found": length}


def chips(*, small: bool) -> dict[str, Callable[[], Any]]:
    import dwave.graphs

    z, p = (4, 4) if small else (12, 16)
    return {"zephyr": lambda: dwave.graphs.zephyr_graph(z), "pegasus": lambda: dwave.graphs.pegasus_graph(p)}


def packing(rows: Rows, *, quick: bool, seed: int) -> None:
    """Cliques on damaged graphs, ours and the peers'."""
    from decompose_packing import measure_cliques, measure_mixed

    size, graphs = 12 if quick else 24, chips(small=quick)
    for turn, topology in product(range(1 if quick else 2), graphs):
        keys = {"topology": topology, "turn": turn, "kind": f"K{size}"}
        measured(rows, keys, partial(measure_cliques, graphs[topology](), turn + seed, size))
    for topology, make in graphs.items():
        keys = {"topology": topology, "turn": 0, "kind": "mixed"}
        measured(rows, keys, partial(measure_mixed, make(), seed, quick))


def templates(rows: Rows, *, quick: bool, seed: int) -> None:
    """Chains of one clique on damaged graphs, ours and busclique's."""
    from decompose_packing import TEMPLATES, measure_template

    for topology, make in chips(small=quick).items():
        for size in TEMPLATES[:1] if quick else TEMPLATES:
            measured(rows, {"topology": topology, "variables": size}, partial(measure_template, make(), seed, size))


def sections(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[Rows], None]]]:
    quick, seed = options.quick, options.seed
    table: dict[str, Callable[[Rows], None]] = {
        "parts": lambda rows: parts(rows, quick=quick),
        "million": lambda rows: million(rows, quick=quick),
        "solutions": lambda rows: solutions(rows, quick=quick, seed=seed),
        "packing": lambda rows: packing(rows, quick=quick, seed=seed),
        "templates": lambda rows: templates(rows, quick=quick, seed=seed),
        "chains": lambda rows: chains(rows, quick=quick, seed=seed, unseen=options.unseen),
    }
    yield from ((name, table[name]) for name in options.sections)


def main() -> None:
    names = ["parts", "million", "solutions", "packing", "templates", "chains"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/decompose"))
    parser.add_argument("--quick", action="store_true", help="small problems, a few seconds each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sections", nargs="+", choices=names, default=names)
    parser.add_argument("--unseen", action="store_true", help="chains of networks to which the prediction was not fitted")
    parser.add_argument("--decompose", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decompose:
        print(json.dumps(decompose_here(options.decompose)))
        return
    config = {"quick": options.quick, "seed": options.seed, "unseen": options.unseen, "part": PART}
    settle(options.out / "config.json", config)
    for name, run in sections(options):
        run(Rows(options.out / f"{name}.csv"))
    from decompose_figures import conclude

    conclude(options.out)


if __name__ == "__main__":
    main()
