"""Second moments of layer inputs: their rate against a bare matrix product, their memory against the number of examples, and
their time against the depth of the network.

    python benchmarks/moments.py --out out/moments

Streams images like MNIST's (random numbers of its shape; the arithmetic is the same) through a Dense layer of 784 inputs. In
turns with it, a compiled product XᵀX of the same chunks gives the machine's rate. Memory is the peak resident size of a
process of its own for each number of images. Depth is that of a residual network of convolutions, all of whose layers' targets
are gathered one after the other, as when they are pruned: each from where the one before was, and each from the start of the
network, in turns. Writes rates.csv, memory.csv, depths.csv and config.json.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from annealsubnet.networks import Tap, as_network, from_function
from annealsubnet.report import provenance
from annealsubnet.statistics.moments import input_moments, moments_chunk, targeted_regression
from annealsubnet.statistics.targets import LayerTargets, targets_from_start

INPUTS, BATCH = 784, 1000
SIDE, CHANNELS = 16, 8


class Images:
    """Batches that are drawn when they are read, so that they take no memory of their own."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[np.ndarray]:
        images = np.random.default_rng(0).random((BATCH, INPUTS), np.float32)
        for start in range(0, self.count, BATCH):
            yield images[: min(BATCH, self.count - start)]


def measure_rates(images: int, turns: int) -> list[dict]:
    """Floating-point operations a second of both sides, in turns; the first turn, which compiles, is left out."""
    network = as_network(nnx.Linear(INPUTS, 300, rngs=nnx.Rngs(0)), np.zeros((1, INPUTS), np.float32))
    product = jax.jit(lambda rows: jnp.matmul(rows.T, rows, precision="highest"))
    chunk = np.concatenate(list(Images(4000)))
    operations = 2 * images * INPUTS**2
    rows = []
    for turn in range(turns + 1):
        start = time.perf_counter()
        input_moments(network, Images(images))
        statistics = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(0, images, len(chunk)):
            product(chunk).block_until_ready()
        bare = time.perf_counter() - start
        if turn:
            rates = {"statistics_gflops": operations / statistics / 1e9, "product_gflops": operations / bare / 1e9}
            rows.append({"turn": turn, **rates, "ratio": bare / statistics})
    return rows


def measure_memory(images: int) -> dict:
    """Peak memory of a fresh process that gathers the moments of so many images, in MiB."""
    command = [sys.executable, __file__, "--memory-of", str(images)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"images": images, "peak_mib": round(int(found.stdout) / 1024, 1)}


def peak_of(images: int) -> int:
    """Gather moments here and return the peak resident size in KiB."""
    network = as_network(nnx.Linear(INPUTS, 300, rngs=nnx.Rngs(0)), np.zeros((1, INPUTS), np.float32))
    input_moments(network, Images(images))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def residual(params: dict, images: jax.Array, tap: Tap) -> jax.Array:
    """Blocks of two convolutions, each block's outputs added to its inputs; then the mean over positions."""
    for block in range(len(params) // 2):
        hidden = jax.nn.relu(tap.conv(f"{block}a", images))
        images = images + tap.conv(f"{block}b", hidden)
    return images.mean((1, 2))


def measure_depth(layers: int, images: int, turns: int) -> dict:
    """Seconds of the targets of all layers, both ways in turns: the first time, with compilation, and the median later."""
    generator = np.random.default_rng(0)
    kernels = 0.1 * generator.normal(size=(layers, 3, 3, CHANNELS, CHANNELS)).astype(np.float32)
    params = {f"{number // 2}{'ab'[number % 2]}": {"kernel": jnp.asarray(kernel)} for number, kernel in enumerate(kernels)}
    batches = [generator.normal(size=(images, SIDE, SIDE, CHANNELS)).astype(np.float32)]
    network = as_network(from_function(residual, params), batches[0])
    size = moments_chunk(network, network.layers)
    pruned = {path: value * (np.abs(value) > 0.05) for path, value in network.params.items()}

    def running_on() -> list:
        visits = LayerTargets(network, batches, size, target_params=network.params)
        return [targeted_regression(network, name, visits.of(name, pruned)).gram for name in network.layers]

    def from_the_start() -> list:
        pieces = [batches[0][start : start + size] for start in range(0, images, size)]
        both = pruned, network.params
        return [
            targeted_regression(network, name, targets_from_start(network, pieces, name, *both)).gram for name in network.layers
        ]

    row: dict = {"layers": layers, "images": images}
    for name, gather in (("running on", running_on), ("from the start", from_the_start)):
        row[f"{name}, first"], found = seconds_of(gather)
        row[f"{name}, gram"] = float(sum(np.abs(gram).sum() for gram in found))
        network.programs.clear()
    for gather in (running_on, from_the_start):
        gather()
    times = [[seconds_of(gather)[0] for gather in (running_on, from_the_start)] for _ in range(turns)]
    row["running on"], row["from the start"] = np.median(times, axis=0).tolist()
    return row


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = call()
    return time.perf_counter() - begun, found


def write(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/moments"))
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(peak_of(options.memory_of))
        return
    many = 6_000 if options.quick else 60_000
    rates = measure_rates(many, turns=5)
    memory = [measure_memory(many // 10), measure_memory(many)]
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "rates.csv", rates)
    write(options.out / "memory.csv", memory)
    depths = [measure_depth(layers, many // 150, turns=3) for layers in ((4, 8) if options.quick else (8, 16, 32))]
    write(options.out / "depths.csv", depths)
    config = {"images": many, "batch": BATCH, "versions": provenance.versions(), "machine": provenance.machine()}
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    ratio = np.median([row["ratio"] for row in rates])
    rate = np.median([row["statistics_gflops"] for row in rates])
    print(f"{many:,} images: {rate:.0f} GFLOP/s, {ratio:.2f} of the bare product's rate (median of {len(rates)} turns)")
    for row in depths:
        ways = [
            f"{row[way]:.2f} s {way} ({row[f'{way}, first']:.1f} the first time)" for way in ("running on", "from the start")
        ]
        print(f"targets of {row['layers']} layers: {', '.join(ways)}")
    print("peak memory: " + ", ".join(f"{row['peak_mib']} MiB for {row['images']:,} images" for row in memory))


if __name__ == "__main__":
    main()
