"""Hybrid solvers of Leap as just other samplers.

`dwave.system.LeapHybridSampler` takes binary quadratic models of any graph and is a dimod sampler as it is:
`annealsubnet.solve` meets a count by a price. `HybridSampler` sends a constrained quadratic model instead, with the count as a
real constraint, so one call is enough.
"""

from typing import Any

import dimod
import numpy as np

from annealsubnet.leap.concealing import conceal
from annealsubnet.leap.connection import LeapError, configured
from annealsubnet.leap.planning import problem_of
from annealsubnet.solvers.options import refuse_unknown


class HybridSampler(dimod.Sampler):
    """Leap's hybrid CQM solver as a dimod sampler that keeps counts.

    Args:
        **config: of the client, as `dwave.system.LeapHybridCQMSampler` takes it; the user's configuration by default.

    Raises:
        LeapError: there is no such solver, or no token.
    """

    def __init__(self, **config: Any) -> None:
        from dwave.system import LeapHybridCQMSampler

        conceal(config.get("token") or configured(config.get("profile")).token)
        try:
            self._sampler = LeapHybridCQMSampler(**config)
        except ValueError as error:
            raise LeapError(
                f"there is no hybrid CQM solver to be had ({error}); set DWAVE_API_TOKEN or choose a profile."
            ) from None
        self._parameters: dict[str, Any] = {"num_kept": [], "time_limit": [], "label": []}

    def __repr__(self) -> str:
        return f"HybridSampler({self._sampler.solver.name})"

    @property
    def parameters(self) -> dict[str, Any]:
        """Every option of `sample`."""
        return self._parameters

    @property
    def properties(self) -> dict[str, Any]:
        """Of the solver."""
        return dict(self._sampler.properties)

    def close(self) -> None:
        """Close the client."""
        self._sampler.close()

    def sample(self, bqm: dimod.BinaryQuadraticModel, *, num_kept: int | None = None, **options: Any) -> dimod.SampleSet:
        """The feasible states that the hybrid solver found.

        Args:
            bqm: BINARY or SPIN.
            num_kept: exactly how many variables are one (up, for SPIN).
            **options: `time_limit` in seconds, `label`.

        Raises:
            LeapError: no state with that count was found.
            TypeError: for an option that does not exist.
        """
        refuse_unknown("HybridSampler", options, self._parameters)
        problem = problem_of(bqm, num_kept=num_kept)
        answer = self._sampler.sample_cqm(problem.to_cqm(), **options)
        feasible = answer.record.sample[answer.record.is_feasible]
        if not len(feasible):
            raise LeapError(f"the hybrid solver found no state that keeps exactly {num_kept} of {bqm.num_variables} variables.")
        columns = [answer.variables.index(name) for name in problem.names]
        states = feasible[:, columns].astype(np.int8)
        values = states if bqm.vartype is dimod.BINARY else 2 * states - 1
        return dimod.SampleSet.from_samples_bqm((values, list(bqm.variables)), bqm, info=dict(answer.info))
