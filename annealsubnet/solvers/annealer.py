"""`Annealer`: simulated annealing of quadratic models, as a dimod sampler.

Each read starts from a random state (or one given), is swept through a schedule of rising inverse temperatures by
Metropolis' rule, and returns the best state it passed through. Where the number of ones is fixed, moves exchange a one
and a zero, so every state along the way has the right count and no penalty term is needed.
"""

import inspect
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import dimod
import numpy as np

from annealsubnet.solvers.many import ManySamples, sample_many
from annealsubnet.solvers.options import NUM_READS, NUM_SWEEPS, Options, refuse_unknown

logger = logging.getLogger(__name__)


class Annealer(dimod.Sampler, dimod.Initialized):
    """Simulated annealing on the CPU, compiled, on all processors; exact cardinalities by exchange moves.

    States are chosen in float32: differences of less than about 6e-8 of a variable's largest bias are not seen (a warning is
    logged where its other biases are that small). The energies of the states that are returned are computed in float64.

    Example:
        >>> import dimod
        >>> bqm = dimod.BinaryQuadraticModel({"a": -1.0, "b": -2.0, "c": -1.5}, {("a", "b"): 2.0}, 0.0, "BINARY")
        >>> float(Annealer().sample(bqm, seed=0).first.energy)
        -3.5
        >>> found = Annealer().sample(bqm, num_kept=1, num_reads=4, seed=0)
        >>> found.first.sample == {"a": 0, "b": 1, "c": 0}
        True

    References:
        S. Kirkpatrick, C. D. Gelatt, M. P. Vecchi, "Optimization by simulated annealing", Science 220 (1983).
    """

    def __init__(self) -> None:
        names = [name for name in inspect.signature(self.sample).parameters if name not in ("bqm", "unknown")]
        self._parameters: dict[str, Any] = {name: [] for name in names}
        self._properties = {"moves": ("flip", "exchange"), "states": ("best", "last"), "vartypes": ("BINARY", "SPIN")}

    def __repr__(self) -> str:
        return "Annealer()"

    @property
    def parameters(self) -> dict[str, Any]:
        """Every option of `sample`."""
        return self._parameters

    @property
    def properties(self) -> dict[str, Any]:
        """What the sampler can do: its moves, which states it returns, which variables it takes."""
        return self._properties

    def sample(
        self,
        bqm: dimod.BinaryQuadraticModel,
        *,
        num_reads: int | None = None,
        num_sweeps: int | None = None,
        beta_range: Sequence[float] | Literal["settled"] | None = None,
        beta_schedule: Sequence[float] | None = None,
        initial_states: Any = None,
        initial_states_generator: Literal["none", "tile", "random"] = "random",
        seed: int | None = None,
        num_threads: int | None = None,
        num_kept: int | None = None,
        groups: Sequence[tuple[Sequence[Hashable], int]] | None = None,
        target: float | None = None,
        time_limit: float | None = None,
        interrupt_function: Callable[[], bool] | None = None,
        state: Literal["best", "last"] = "best",
        exchanges: bool = False,
        num_replicas: int | None = None,
        num_tabu_sweeps: int | None = None,
        presolve: bool = False,
        backend: Literal["auto", "numba", "jax"] = "auto",
        **unknown: Any,
    ) -> dimod.SampleSet:
        """Anneal a binary quadratic model.

        Args:
            bqm: the model; BINARY or SPIN, any labels.
            num_reads: independent runs; by default as many as `initial_states`, or 16.
            num_sweeps: passes over all variables in a run; 1000 by default.
            beta_range: inverse temperatures (hot, cold), in units of one over energy, between which the schedule is
                geometric; by default chosen from the biases (`solvers.schedules`). (inf, inf) is temperature zero:
                every read descends by the same moves until none lowers the energy. "settled" chooses them from the
                flips of a local minimum, which is colder where couplings pull together, as in least squares.
            beta_schedule: the inverse temperature of every sweep, instead of a range.
            initial_states: states to start from, in any form that `dimod.as_samples` takes.
            initial_states_generator: how to make up for missing ones: "random", "tile" (repeat them) or "none"
                (raise).
            seed: the same seed gives the same answer, for any number of threads; drawn, and reported in `info`, if
                None.
            num_threads: threads to run reads on; by default one a processor where that pays.
            num_kept: exactly how many variables are one (up, for SPIN), by exchanges.
            groups: pairs of (variables, how many of them are one); variables of no group are flipped.
            target: stop at the first read (in order) whose energy is no more than this.
            time_limit: seconds after which reads are cut short and descend, and those not begun are left out; the
                one option that gives up reproducibility.
            interrupt_function: called every few milliseconds; stops like `time_limit` when it returns true.
            state: "best" for the best state seen in each read, followed by a descent; "last" for its last state,
                which is a sample of the Boltzmann distribution if the schedule is slow enough.
            exchanges: after every sweep of flips, exchange ones with zeros as well (sixteen proposals a variable). A
                sweep takes longer; where variables stand in for each other, as the inputs of a neuron do, the optimum
                is found many times sooner.
            num_replicas: replicas of each read, spread over the beta range and exchanged (parallel tempering), instead
                of one that is cooled; each makes `num_sweeps` sweeps.
            num_tabu_sweeps: walk on from the best state of each read by tabu search (`solvers.tabu`) until this many
                sweeps of steps found nothing lower. On large problems 30 sweeps of annealing and 20 of this find the
                optimum in a tenth to a hundredth of the time of annealing alone.
            presolve: fix variables by roof duality and anneal connected components apart, which keeps an optimum.
            backend: "numba" for the CPU's kernels, "jax" for those of an accelerator (which have no early stop); by
                default the latter only where JAX has a GPU or TPU, for flips, and many large reads fill it.
            **unknown: refused.

        Returns:
            A sample a read, in the order of reads, with its energy in float64. `info` says how: seed, beta range,
            kernel, sweeps done, moves accepted, what ended the run, seconds by step.

        Raises:
            TypeError: for an option that does not exist.
            ValueError: for biases that are not finite, energies that overflow, and options that do not fit the model.
        """
        refuse_unknown("Annealer", unknown, self._parameters)
        given = locals()
        options = Options(**{name: given[name] for name in self._parameters})
        if presolve:
            from annealsubnet.solvers.presolve import sample_presolved

            return sample_presolved(bqm, options, options.drawn_seed, lambda part, chosen: _sample(self, part, chosen))
        return _sample(self, bqm, options)

    def sample_many(
        self,
        linear: Any,
        couplings: Any,
        *,
        scales: Any = None,
        num_kept: Any = None,
        num_reads: int = 1,
        num_sweeps: int = NUM_SWEEPS,
        beta_range: Sequence[float] | None = None,
        initial_states: Any = None,
        seed: int | None = None,
        num_threads: int | None = None,
        state: Literal["best", "last"] = "best",
    ) -> ManySamples:
        """Anneal thousands of small binary problems in one call: arrays in, arrays out.

        Problem n has the energy E_n(x) = linear[n]·x + ½ xᵀ couplings[n] x, or, with `scales` c, that of a neuron of a
        layer whose inputs have the second moment H = couplings: E_n(x) = Σ_ij c_ni c_nj H_ij x_i x_j + linear[n]·x.

        Args:
            linear: linear biases: an array [problems, variables], or a sequence of arrays of mixed sizes.
            couplings: symmetric couplings, whose diagonals are not read: an array [problems, variables, variables] or
                a sequence of square arrays. With `scales`: one symmetric matrix [variables, variables] for all, whose
                diagonal counts.
            scales: factors c, [problems, variables], if all problems share one matrix.
            num_kept: exactly how many variables are one: for all problems, or one number a problem.
            num_reads: independent runs a problem.
            num_sweeps: passes over the variables in a run.
            beta_range: inverse temperatures (hot, cold) for all problems; by default each has its own.
            initial_states: [problems, reads, variables] or [problems, variables]; random by default.
            seed: the same seed gives the same answer, for any number of threads; drawn if None.
            num_threads: by default one a processor where that pays.
            state: "best" for the best state seen, "last" for the last one.

        Returns:
            States and energies of every read.

        Raises:
            TypeError: for counts that are no whole numbers.
            ValueError: for arrays that do not fit together or are not finite, couplings that are not symmetric, and options
                that do not fit the problems.

        Example:
            >>> import numpy as np
            >>> rng = np.random.default_rng(0)
            >>> c, H, linear = rng.normal(size=(100, 8)), np.cov(rng.normal(size=(8, 20))), rng.normal(size=(100, 8))
            >>> samples = Annealer().sample_many(linear, H, scales=c, num_kept=3, seed=0)
            >>> samples
            ManySamples(100 problems, 1 reads, up to 8 variables)
            >>> set(samples.states.sum(axis=2).ravel().tolist())
            {3}
        """
        return sample_many(
            linear,
            couplings,
            scales=scales,
            num_kept=num_kept,
            num_reads=num_reads,
            num_sweeps=num_sweeps,
            beta_range=beta_range,
            initial_states=initial_states,
            seed=seed,
            num_threads=num_threads,
            state=state,
        )


def _sample(sampler: Annealer, bqm: dimod.BinaryQuadraticModel, options: Options) -> dimod.SampleSet:
    from annealsubnet.solvers import annealing, compiled

    start = time.perf_counter()
    seed = options.drawn_seed
    energy = compiled.energy_of(bqm)
    groups = compiled.groups_of(list(bqm.variables), options.num_kept, options.groups)
    if compiled.is_coarse(compiled.centered(energy, groups)):
        logger.warning("Some variable has a bias of more than 2**24 times its others, which are lost in float32.")
    states = _initial_states(sampler, bqm, options, groups, np.random.default_rng(seed))
    prepared = time.perf_counter()
    result = annealing.anneal(energy, groups, states, options, seed)
    annealed = time.perf_counter()
    samples = 2 * result.states - 1 if bqm.vartype is dimod.SPIN else result.states
    sampleset = dimod.SampleSet.from_samples(
        (samples, list(bqm.variables)), vartype=bqm.vartype, energy=result.energies, info={}, sort_labels=False
    )
    seconds = {
        "prepare": prepared - start,
        "anneal": annealed - prepared,
        "collect": time.perf_counter() - annealed,
    }
    sampleset.info.update(result.info, seed=seed, seconds=seconds)
    return sampleset


def _initial_states(
    sampler: Annealer, bqm: dimod.BinaryQuadraticModel, options: Options, groups: Any, rng: np.random.Generator
) -> np.ndarray:
    """The states that reads start from, as 0 and 1 in the order of `bqm.variables`."""
    if options.initial_states is None:
        if options.initial_states_generator != "random":
            raise ValueError(f'"{options.initial_states_generator}" needs initial_states; none are given.')
        num_reads = NUM_READS if options.num_reads is None else int(options.num_reads)
        return groups.random_states(num_reads, rng)
    parsed = sampler.parse_initial_states(
        bqm,
        initial_states=options.initial_states,
        initial_states_generator="tile" if options.initial_states_generator == "tile" else "none",
        num_reads=None,
        copy_always=True,
    ).initial_states
    columns = [parsed.variables.index(variable) for variable in bqm.variables]
    given = (parsed.record.sample[:, columns] > 0).astype(np.int8)
    groups.check(given)
    num_reads = len(given) if options.num_reads is None else int(options.num_reads)
    missing = num_reads - len(given)
    if missing <= 0:
        return given[:num_reads]
    if options.initial_states_generator == "none":
        raise ValueError(f"num_reads is {num_reads}, but there are only {len(given)} initial states.")
    if options.initial_states_generator == "tile":
        return np.resize(given, (num_reads, given.shape[1]))
    return np.concatenate([given, groups.random_states(missing, rng)])
