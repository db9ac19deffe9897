"""`LoopbackLeap`: D-Wave's Leap service on this machine, for tests that must not cost anything.

A real HTTP server on 127.0.0.1 that the unmodified dwave-cloud-client, and so every sampler of dwave-system, talks to. Its
QPUs have working graphs with defects, ranges, noise, chains that break, and timing by the published model; its answers are
classical, and say so. What goes wrong with services far away goes wrong here on request.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from annealsubnet.leap import devices
from annealsubnet.leap.devices import Topology
from annealsubnet.testing.faults import Dice, Faults
from annealsubnet.testing.routing import PREFIX, Server
from annealsubnet.testing.sampling import Noise
from annealsubnet.testing.service import Job, Service

TOKEN = "loopback-token"


class LoopbackLeap:
    """A Leap service on 127.0.0.1, to be used in a `with` statement.

    Args:
        topology: of its QPU; Zephyr 12 and Pegasus 16 are the sizes of today's.
        size: of the topology.
        defects: share of qubits that do not work.
        noise: of the QPU.
        faults: what goes wrong by chance.
        latency: least seconds that a job takes.
        workers: jobs solved at the same time.
        token: that clients must give.
        seed: of defects and sampling.
        port: 0 for any that is free.

    Example:
        >>> from dwave.system import DWaveSampler
        >>> with LoopbackLeap(size=2, seed=0) as leap, DWaveSampler(**leap.config) as sampler:
        ...     answer = sampler.sample_ising({sampler.nodelist[0]: -1.0}, {}, num_reads=5)
        >>> float(answer.first.energy), answer.info["problem_id"].split("-")[0]
        (-1.0, 'classical')
    """

    def __init__(
        self,
        *,
        topology: Topology = "zephyr",
        size: int = 12,
        defects: float = 0.05,
        noise: Noise | None = None,
        faults: Faults | None = None,
        latency: float = 0.0,
        workers: int = 1,
        token: str = TOKEN,
        seed: int = 0,
        port: int = 0,
    ) -> None:
        self.qpu = devices.qpu(topology, size, defects=defects, seed=seed)
        self.token = token
        self._dice = Dice(faults or Faults())
        solvers = [self.qpu, devices.hybrid("bqm"), devices.hybrid("cqm")]
        self.service = Service(solvers, self._dice, noise=noise or Noise(), latency=latency, workers=workers, seed=seed)
        self._server = Server(self.service, self._dice, token, port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="loopback-leap", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LoopbackLeap({self.solver_name} at {self.endpoint}, {len(self.jobs)} jobs accepted)"

    def close(self) -> None:
        """Stop the server."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self.service.close()

    @property
    def endpoint(self) -> str:
        """The address that clients use."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{PREFIX}"

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments of `dwave.cloud.Client.from_config` and of every sampler of dwave-system."""
        return {"endpoint": self.endpoint, "token": self.token, "profile": None, "config_file": False}

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that lead any client in another process here."""
        return {"DWAVE_API_ENDPOINT": self.endpoint, "DWAVE_API_TOKEN": self.token, "DWAVE_CACHE_HOME": "off"}

    @property
    def solver_name(self) -> str:
        """Name of the QPU."""
        return str(self.qpu["identity"]["name"])

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job accepted so far, in order."""
        return tuple(self.service.jobs.values())

    @property
    def labels(self) -> Counter[str | None]:
        """How often each label was accepted; more than once is a job paid twice."""
        return Counter(job.label for job in self.jobs)

    @property
    def faults_thrown(self) -> Counter[str]:
        """How often each fault has happened."""
        return self._dice.thrown

    @property
    def qpu_seconds(self) -> float:
        """QPU access time that all answers so far have reported."""
        answers: Sequence[Any] = [job.answer for job in self.jobs if job.answer is not None and "timing" in job.answer]
        return 1e-6 * sum(float(answer["timing"]["qpu_access_time"]) for answer in answers)

    def begin_faults(self, faults: Faults) -> None:
        """From now on these go wrong by chance: a sampler that was made before is made without them."""
        self._dice.begin(faults)

    def next_fault(self, name: str, *, times: int = 1) -> None:
        """Let a fault happen to the next requests, or jobs, that it can happen to."""
        self._dice.ask(name, times)

    def change_graph(self) -> str:
        """Let a few qubits of the QPU fail now; returns the id of the new working graph."""
        return self.service.change_graph(self.solver_name)

    def go_offline(self) -> None:
        """Take the QPU off line."""
        self.service.solvers[self.solver_name]["status"] = "OFFLINE"
