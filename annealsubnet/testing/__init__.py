"""What users need to test their own code: a Leap service that runs on this machine and costs nothing."""

from annealsubnet.testing.faults import FAULTS, Faults
from annealsubnet.testing.loopback import LoopbackLeap
from annealsubnet.testing.sampling import Noise

__all__ = ["FAULTS", "Faults", "LoopbackLeap", "Noise"]
