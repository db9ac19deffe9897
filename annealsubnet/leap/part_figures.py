"""Part rows: what a plan's parts are like, one row a part: predicted beside found."""

from typing import Any

import numpy as np

from annealsubnet.decompose import predict_chains
from annealsubnet.leap.embedding import couplings_of
from annealsubnet.leap.planning import Plan


def part_rows(plan: Plan) -> list[dict[str, Any]]:
    """Figures of every part of a plan.

    Args:
        plan: any.

    Returns:
        For each part the problem it is of, its variables, couplings, greatest degree and bound of the treewidth; the longest
        chain and the qubits, predicted and found; by what it is multiplied to fit the device's ranges; and the share of its
        problem's coupling weight that lies inside it.

    Example:
        >>> from annealsubnet import leap
        >>> from annealsubnet.problems import Problem
        >>> clique = Problem(np.zeros(8), np.ones((8, 8)) - np.eye(8))
        >>> row = part_rows(leap.plan(clique, "zephyr:2", seed=0))[0]
        >>> row["variables"], row["treewidth"], row["predicted_chain"], row["found_chain"], row["share_inside"]
        (8, 7, 2, 2, 1.0)
    """
    topology = plan.solver.properties["topology"]["type"]
    scales = {place.part: place.scale for job in plan.jobs for place in job.placements}
    totals = [float(np.abs(problem.couplings).sum()) for problem in plan.problems]
    rows = []
    for number, planned in enumerate(plan.parts):
        edges = couplings_of(planned.part)
        starts, columns = edges.rows
        chains = predict_chains(starts, columns, topology=topology)
        inside, total = float(np.abs(planned.part.couplings).sum()), totals[planned.problem]
        rows.append(
            {
                "part": number,
                "problem": planned.problem,
                "variables": edges.size,
                "couplings": len(edges.pairs),
                "degree": int(np.diff(starts).max(initial=0)),
                "treewidth": chains.treewidth,
                "predicted_chain": chains.length,
                "found_chain": planned.chain_length,
                "predicted_qubits": chains.qubits,
                "found_qubits": planned.num_qubits,
                "scale": scales[number],
                "share_inside": inside / total if total else 1.0,
            }
        )
    return rows
