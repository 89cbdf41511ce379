"""LeNet-300-100 and ResNet-20 against a plain loop: uv run python benchmarks/small_networks.py.

speed: CPU time of a step in float32 on one thread, under a mask that prunes nothing: ours, and a
plain loop of the same network (NCHW, PyTorch's SGD as it is by default, masks laid over the weights
after each step), on the same batches, in interleaved rounds of one process. Both are first shown
to give the same losses. profile: where ours spends it, by PyTorch's profiler.

Workers keep the memory that they free (`lthdask/cluster/overrides.py`), and so does this script,
for both loops. `--allocation usual` leaves it as PyTorch's users have it.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from statistics import median

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from lthdask.cluster.overrides import MEMORY
from lthdask.data.batches import Data, Images
from lthdask.networks.build import Network, build
from lthdask.pruning.rule import prunable_weights
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.loop import train
from lthdask.training.recipe import Optimizer, Recipe

RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4
KINDS = {  # name → shape of an image, batch, steps of a round
    "lenet_300_100": ((1, 28, 28), 60, 100),
    "resnet20": ((3, 32, 32), 64, 4),
}
SHOWN = 12


def noise(shape: tuple[int, ...], count: int) -> Data:
    """Return so many images of noise to train on, in 10 classes."""
    random = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        pixels = torch.randint(256, (count, *shape), generator=random, dtype=torch.uint8)
        return Images(pixels, torch.randint(10, (count,), generator=random))

    mean, std = torch.full((shape[0], 1, 1), 128.0), torch.full((shape[0], 1, 1), 74.0)
    return Data(images(count), images(250), images(250), 10, mean, std)


def ours(name: str, data: Data, every: int) -> Iterator[float]:
    """Train by our loop; yield the sum of the losses each `every` steps."""
    torch.manual_seed(0)
    network = build(Network(name), data.shape, 10).to(memory_format=torch.channels_last)
    start = Checkpoint(0, {n: t.clone() for n, t in network.state_dict().items()})
    mask = {n: torch.ones_like(w, dtype=torch.bool) for n, w in prunable_weights(network).items()}
    recipe = Recipe(1, KINDS[name][1], Optimizer("sgd", RATE, MOMENTUM, DECAY))
    due, engine = cycle([*[False] * (every - 1), True]), Engine("cpu", "float32")
    how = {"seed": 0, "replicate": 0, "mask": mask, "engine": engine, "due": lambda: next(due)}
    for found in train(network, data, recipe, start, **how):  # type: ignore[arg-type]
        yield found.states()[0].loss


def plain(name: str, data: Data, every: int) -> Iterator[float]:
    """Train by a plain loop; yield the sum of the losses each `every` steps."""
    torch.manual_seed(0)
    network = build(Network(name), data.shape, 10).train()
    masks = {n: torch.ones_like(w) for n, w in prunable_weights(network).items()}
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    losses = 0.0
    for step, (images, labels) in enumerate(data.epoch(KINDS[name][1], 0, 0, 1), 1):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for weight, mask in masks.items():
                network.get_parameter(weight).mul_(mask)
        losses += loss.item()
        if step % every == 0:
            yield losses


def require_equal(name: str, data: Data) -> None:
    """Stop unless both loops find the same two losses."""
    one, other = (list(islice(loop(name, data, 1), 2)) for loop in (ours, plain))
    off = max(abs(a / b - 1) for a, b in zip(one, other, strict=True))
    print(f"{name}: the losses of two steps differ by {off:.1e}")
    if off > 1e-4:
        raise SystemExit("the loops do not train the same: no speed is compared")


def show_speed(name: str, data: Data, rounds: int) -> None:
    """Print the CPU time of a step of both loops."""
    steps = KINDS[name][2]
    loops = {"plain": plain(name, data, steps), "ours": ours(name, data, steps)}
    times: dict[str, list[float]] = {which: [] for which in loops}
    for run in loops.values():
        next(run)  # warms up
    for _ in range(rounds):
        for which, run in loops.items():
            began = time.process_time()
            next(run)
            times[which].append(1000 * (time.process_time() - began) / steps)
    ratio = median(a / b for a, b in zip(times["plain"], times["ours"], strict=True))
    shown = ", ".join(f"{which} {median(taken):.2f} ms" for which, taken in times.items())
    print(f"{name}: CPU of a step: {shown}; ours is {ratio:.2f} times as fast")


def show_profile(name: str, data: Data) -> None:
    """Print which operators take the time of our step."""
    steps = KINDS[name][2]
    run = ours(name, data, steps)
    next(run)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        next(run)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    print(f"\n| {name}: operator | calls a step | share of its time |\n|---|---|---|")
    for event in events[:SHOWN]:
        calls, share = event.count / steps, event.self_cpu_time_total / whole
        print(f"| {event.key} | {calls:.0f} | {share:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--allocation", choices=["workers", "usual"], default="workers")
    given = parser.parse_args()
    kept = {name: str(value) for name, value in MEMORY.items()}
    if given.allocation == "workers" and not kept.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | kept)  # read at start
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name, (shape, batch, steps) in KINDS.items():
        data = noise(shape, batch * steps * (given.rounds + 3))
        require_equal(name, data)
        show_speed(name, data, given.rounds)
        show_profile(name, data)


if __name__ == "__main__":
    main()
