"""Measurements of the engine. `python -m tools.bench memory` prints the peak memory of one hypergradient.

Each figure comes from a process of its own: the peak of its resident memory, less what it held before the unroll.
ConvNet-128, 28x28 images, batch 10, free images, float32, CPU.
"""

import argparse
import json
import math
import os
import subprocess
import sys

STEPS = (20, 50, 100, 200)
SETTINGS = ("one graph of all steps", "every step's graph", "every state", "every sqrt(T)-th state")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    memory = commands.add_parser("memory", help="peak memory at several numbers of inner steps and settings")
    memory.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    memory.add_argument("--most-gib", type=float, default=12.0, help="leave out what would need more (%(default)s)")
    memory.add_argument("--json", action="store_true")
    one = commands.add_parser("one", help="one figure, measured in this process (used by the others)")
    one.add_argument("steps", type=int)
    one.add_argument("setting", choices=SETTINGS)
    options = parser.parse_args(arguments)
    if options.command == "one":
        print(json.dumps(measure(options.steps, options.setting)))
        return 0
    rows = memory_table(options.steps, options.most_gib)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    print("| what is kept | " + " | ".join(f"{t} steps" for t in options.steps) + " |")
    print("| --- " * (len(options.steps) + 1) + "|")
    for setting, figures in rows.items():
        cells = [f"{f['peak_mib']:.0f} MiB, {f['seconds']:.1f} s" if f else "left out" for f in figures]
        print(f"| {setting} | " + " | ".join(cells) + " |")
    return 0


def memory_table(steps: list[int], most_gib: float) -> dict[str, list[dict[str, float] | None]]:
    """Peak MiB and seconds of each setting at each number of steps; None where a shorter unroll says it is too much."""
    rows: dict[str, list[dict[str, float] | None]] = {}
    for setting in SETTINGS:
        row: list[dict[str, float] | None] = []
        for t in steps:
            known = [(s, f) for s, f in zip(steps, row, strict=False) if f]
            expected = known[-1][1]["peak_mib"] * t / known[-1][0] / 1024 if known else 0.0
            row.append(None if expected > most_gib and "graph" in setting else _in_own_process(t, setting))
        rows[setting] = row
    return rows


def _in_own_process(steps: int, setting: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tools.bench", "one", str(steps), setting]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(steps: int, setting: str) -> dict[str, float]:
    """Peak resident memory that one hypergradient adds, in MiB, and its seconds."""
    import resource
    import time

    import torch
    from torch.func import functional_call
    from torch.nn.functional import cross_entropy

    from suite.architectures.convnet import ConvNet
    from suite.inner_optimizers.sgd_momentum import SGDMomentum
    from suite.keys import Key, global_generators
    from suite.types import ImageShape, Params
    from suite.unroll import Retention, hypergradient, hypergradient_by_full_graph

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    key = Key(0)
    with global_generators(key):
        network = ConvNet().build(ImageShape(1, 28, 28), 10)
    images = torch.randn(10, 1, 28, 28, generator=key("images").generator())
    labels = torch.arange(10)

    def inner(params: Params, inputs: Params, t: int) -> torch.Tensor:
        return cross_entropy(functional_call(network, params, (inputs["images"],)), labels)

    def outer(params: Params) -> torch.Tensor:
        return cross_entropy(functional_call(network, params, (images,)), labels)

    settings = {
        "every step's graph": Retention(graphs=steps),
        "every state": Retention(),
        "every sqrt(T)-th state": Retention(stride=math.isqrt(steps)),
    }
    params: Params = {k: p.detach() for k, p in network.named_parameters()}
    inputs, optimizer = {"images": images}, SGDMomentum()
    hypergradient(
        inner, outer, params, inputs, optimizer, 1
    )  # what the first use of every operation allocates is not the unroll's
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if setting in settings:
        hypergradient(inner, outer, params, inputs, optimizer, steps, settings[setting])
    else:
        hypergradient_by_full_graph(inner, outer, params, inputs, optimizer, steps)
    seconds = time.perf_counter() - started
    return {"peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
