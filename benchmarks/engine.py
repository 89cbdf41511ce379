"""Our training loop against PyTorch's defaults: uv run python benchmarks/engine.py [--part PART].

equal: both loops give the same losses on the same batches. speed: images per second of
MobileNetV2 at 32×32 pixels, batch 128: ours in two processes of one thread, as two workers
train, and in one; torchvision's network in PyTorch's defaults (NCHW, float32, every thread),
in interleaved rounds; and the same with the one line that sends matrix products to oneDNN.
passes: our step with batch norm and ReLU6 together and apart, by each library of products, and
an evaluation as it is and folded, on one thread. memory: what a training process takes above
its imports. compile: our network through torch.compile against itself, on one thread; it takes
minutes.
"""

import argparse
import multiprocessing as mp
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice, pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
import torchvision.models

from lthdask.data.batches import Data, Images
from lthdask.lottery import runs
from lthdask.lottery.experiment import Experiment
from lthdask.networks.build import Network
from lthdask.networks.mobilenet import ConvNormReLU6
from lthdask.pruning.rule import Pruning
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.evaluation import evaluate
from lthdask.training.loop import train
from lthdask.training.recipe import Optimizer, Recipe

PARTS = ("equal", "speed", "passes", "memory", "compile")
BATCH = 128
STEPS = 8
MOMENTUM, DECAY, RATE = 0.9, 5e-4, 0.01
ONE_THREAD = Engine(device="cpu", precision="float32", matmul="default", evaluation="plain")


def noise(batches: int, dtype: torch.dtype) -> Data:
    """Return so many batches of colour noise at 32×32 pixels, in 10 classes.

    No channel of it is constant; of such ones, batch norm makes much of their rounding.
    """
    random = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        pixels = torch.randint(256, (count, 3, 32, 32), generator=random, dtype=torch.uint8)
        return Images(pixels, torch.randint(10, (count,), generator=random))

    mean, std = torch.full((3, 1, 1), 128, dtype=dtype), torch.full((3, 1, 1), 74, dtype=dtype)
    return Data(images(batches * BATCH), images(250), images(250), 10, mean, std)


def experiment(
    batches: int,
    engine: Engine,
    dtype: torch.dtype = torch.float32,
    form: str = "imagenet",
) -> Experiment:
    """Return the experiment of one epoch of so many batches."""
    optimizer = Optimizer("sgd", RATE, MOMENTUM, DECAY)
    return Experiment(
        network=Network("mobilenet_v2", form=form),  # type: ignore[arg-type]
        data=noise(batches, dtype),
        recipe=Recipe(1, BATCH, optimizer),
        pruning=Pruning("lamp"),
        seed=0,
        engine=engine,
    )


def ours(
    batches: int,
    engine: Engine,
    every: int,
    dtype: torch.dtype,
    compiled: bool = False,
    apart: bool = False,
) -> Iterator[float]:
    """Train by our loop; yield the sum of the losses, each `every` steps.

    `apart`, batch norm and ReLU6 are layers of their own, as they were.
    """
    one, due = experiment(batches, engine, dtype), cycle([*[False] * (every - 1), True])
    network = one.build().to(dtype)
    if compiled:
        network.compile()
    for layer in network.modules():
        if apart and type(layer) is ConvNormReLU6:
            layer.__class__ = torch.nn.Sequential
    start = Checkpoint(0, {name: t.clone() for name, t in network.state_dict().items()})
    for found in train(
        network,
        one.data,
        one.recipe,
        start,
        seed=0,
        replicate=0,
        engine=engine,
        due=lambda: next(due),
    ):
        yield found.states()[0].loss


def defaults(batches: int, dtype: torch.dtype) -> Iterator[float]:
    """Train torchvision's network as PyTorch's tutorials do; yield the loss of each step.

    From our initial weights, on our batches; without dropout, as ours.
    """
    same = experiment(batches, ONE_THREAD, dtype)
    network = torchvision.models.mobilenet_v2(num_classes=10, dropout=0.0).to(dtype)
    network.load_state_dict({n: t.contiguous() for n, t in same.build().state_dict().items()})
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    for images, labels in same.data.epoch(BATCH, 0, 0, 1):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        yield loss.item()


def difference(steps: int, dtype: torch.dtype) -> float:
    """Return by how much the losses of the loops differ at most, relative, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    sums = [0.0, *islice(ours(steps + 1, ONE_THREAD, 1, dtype), steps)]
    one = [after - before for before, after in pairwise(sums)]
    other = list(islice(defaults(steps + 1, dtype), steps))
    torch.set_num_threads(before)
    return max(abs(a - b) / b for a, b in zip(one, other, strict=True))


def require_equal() -> None:
    """Stop unless both loops train the same.

    In float32 the first loss: from there on batch norm, which sees single pixels in the end,
    makes the last bits of one step the third digit of the next. In float64 four steps, but
    for our loss itself, which is float32 there, too.
    """
    first, later = difference(1, torch.float32), difference(4, torch.float64)
    print(
        f"ours and the defaults differ by {first:.1e} in the first loss in float32, "
        f"by {later:.1e} in 4 steps in float64"
    )
    if first > 1e-5 or later > 1e-5:
        raise SystemExit("the loops do not train the same: no speed is compared")


def our_rounds(
    batches: int, engine: Engine, compiled: bool = False, apart: bool = False
) -> Iterator[object]:
    """Train `STEPS` steps by our loop whenever it is asked."""
    return ours(batches, engine, STEPS, torch.float32, compiled, apart)


def default_rounds(batches: int, one_line: bool = False) -> Iterator[object]:
    """Train `STEPS` steps by the plain loop whenever it is asked."""
    if one_line:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    steps = defaults(batches, torch.float32)
    return iter(lambda: list(islice(steps, STEPS)), [])


def evaluations(name: str, engine: Engine) -> Iterator[object]:
    """Evaluate 1,000 images whenever it is asked."""
    one = replace(experiment(8, engine), network=Network(name))
    network = one.build()
    while True:
        yield evaluate(network, one.data, one.data.train.subset(torch.arange(1000)), engine)


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes
    ----------
    name : str
    processes, threads : int
        Of each process; 0 are as many as PyTorch takes.
    prepare : callable
        Given `arguments`, returns an iterator that trains a round whenever it is asked.
    arguments : tuple
    """

    name: str
    processes: int
    threads: int
    prepare: Callable[..., Iterator[object]]
    arguments: tuple[object, ...]


def serve(way: Way, pipe: Connection) -> None:
    """Train a round whenever the pipe says so; answer with the seconds of CPU."""
    if way.threads:
        torch.set_num_threads(way.threads)
    rounds = way.prepare(*way.arguments)
    next(rounds)  # warms up
    pipe.send(True)
    while pipe.recv():
        began = time.process_time()
        next(rounds)
        pipe.send(time.process_time() - began)


class Group:
    """The processes of a way; they wait while others are timed."""

    def __init__(self, way: Way) -> None:
        spawn, began = mp.get_context("spawn"), time.perf_counter()
        self.pipes, self.processes = [], []
        for _ in range(way.processes):
            here, there = spawn.Pipe()
            self.processes.append(spawn.Process(target=serve, args=(way, there)))
            self.processes[-1].start()
            self.pipes.append(here)
        for pipe in self.pipes:
            pipe.recv()
        print(f"{way.name}: ready after {time.perf_counter() - began:.0f} s", flush=True)

    def round(self, images: int) -> tuple[float, float]:
        """Return images per second, and CPU milliseconds an image, of `images` a process."""
        began = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(True)
        cpu = sum(pipe.recv() for pipe in self.pipes)
        images *= len(self.pipes)
        return images / (time.perf_counter() - began), 1000 * cpu / images

    def end(self) -> None:
        """End the processes."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(False)
            process.join()


Speeds = list[list[tuple[float, float]]]


def speeds(ways: list[Way], rounds: int, images: int) -> Speeds:
    """Return, per way, what each interleaved round of `images` a process measured."""
    groups = [Group(way) for way in ways]
    found = [[group.round(images) for group in groups] for _ in range(rounds)]
    for group in groups:
        group.end()
    return [list(of_way) for of_way in zip(*found, strict=True)]


def ratio(one: list[tuple[float, float]], base: list[tuple[float, float]]) -> float:
    """Return the median over the rounds of how many times as fast one is as the other."""
    return median(a[0] / b[0] for a, b in zip(one, base, strict=True))


def show(title: str, ways: list[Way], found: Speeds) -> None:
    """Print a table; ratios are to the first way, of images a second and of seconds of CPU."""
    print(f"\n| {title} | images/s | CPU ms/image | ratio | of CPU |\n|---|---|---|---|---|")
    for way, of_way in zip(ways, found, strict=True):
        rate, cpu = (median(values) for values in zip(*of_way, strict=True))
        less = median(base[1] / one[1] for one, base in zip(of_way, found[0], strict=True))
        times = f"{ratio(of_way, found[0]):.2f} | {less:.2f}"
        print(f"| {way.name} | {rate:.0f} | {cpu:.3f} | {times} |")


def chosen(form: str = "imagenet") -> Engine:
    """Return the engine that a study of this network would be given here."""
    return runs.choose_engine(Engine("cpu"), experiment(1, ONE_THREAD, form=form)).engine


def ways_to_train(rounds: int) -> list[Way]:
    """Return PyTorch's defaults and ours in two processes, then each on one thread."""
    engine, batches = chosen(), (rounds + 2) * STEPS
    how, ours = f"{engine.precision}, {engine.matmul}", (our_rounds, (batches, engine))
    plain, line = (default_rounds, (batches,)), (default_rounds, (batches, True))
    return [
        Way("PyTorch's defaults, 1 process, every thread", 1, 0, *plain),
        Way(f"ours, 2 processes × 1 thread, {how}", 2, 1, *ours),
        Way("the defaults and one line, 1 process, every thread", 1, 0, *line),
        Way("PyTorch's defaults, 1 process × 1 thread", 1, 1, *plain),
        Way("the defaults and one line, 1 process × 1 thread", 1, 1, *line),
        Way(f"ours, 1 process × 1 thread, {how}", 1, 1, *ours),
    ]


def show_passes(rounds: int) -> None:
    """Print what each part of the engine gains, on one thread."""
    batches, by_onednn = (rounds + 2) * STEPS, replace(ONE_THREAD, matmul="onednn")
    ways = [
        Way("apart", 1, 1, our_rounds, (batches, ONE_THREAD, False, True)),
        Way("together", 1, 1, our_rounds, (batches, ONE_THREAD)),
        Way("apart, oneDNN", 1, 1, our_rounds, (batches, by_onednn, False, True)),
        Way("together, oneDNN", 1, 1, our_rounds, (batches, by_onednn)),
    ]
    show("a step, batch norm and ReLU6", ways, speeds(ways, rounds, STEPS * BATCH))
    for name in ("mobilenet_v2", "resnet20"):
        ways = [
            Way(f"{way}, {matmul}", 1, 1, evaluations, (name, replace(ONE_THREAD, **of)))
            for way in ("plain", "folded")
            for matmul in ("default", "onednn")
            if (of := {"evaluation": way, "matmul": matmul})
        ]
        show(f"an evaluation, {name}", ways, speeds(ways, rounds, 1000))


def resident(field: str) -> float:
    """Return a line of this process's memory, in MB: ``VmRSS`` now, ``VmHWM`` its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000


def measure_memory(form: str, engine: Engine, pipe: Connection) -> None:
    """Send the memory before training, and the peak of an epoch of three steps."""
    torch.set_num_threads(1)
    one = experiment(3, engine, form=form)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    for _ in runs.train_dense(one, 0):
        pass
    pipe.send((before, resident("VmHWM")))


def show_memory() -> None:
    spawn = mp.get_context("spawn")
    print(f"\n| batch {BATCH}, 32×32 | imports and data | peak | above imports |")
    print("|---|---|---|---|")
    for form in ("imagenet", "small"):
        here, there = spawn.Pipe()
        process = spawn.Process(target=measure_memory, args=(form, chosen(form), there))
        process.start()
        before, peak = here.recv()
        process.join()
        print(f"| {form} | {before:.0f} MB | {peak:.0f} MB | {peak - before:.0f} MB |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = "all but compile by default"
    parser.add_argument("--part", action="append", choices=PARTS, help=default)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    parts = arguments.part or PARTS[:-1]
    load1 = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {load1:.1f}")
    if "equal" in parts or "speed" in parts:
        require_equal()
    if "speed" in parts:
        ways = ways_to_train(arguments.rounds)
        found = speeds(ways, arguments.rounds, STEPS * BATCH)
        show(f"MobileNetV2, 32×32, batch {BATCH}", ways, found)
        print(f"\nours / the defaults and one line: {ratio(found[1], found[2]):.2f}")
        print(f"the same on one thread: {ratio(found[5], found[4]):.2f}")
    if "passes" in parts:
        show_passes(arguments.rounds)
    if "memory" in parts:
        show_memory()
    if "compile" in parts:
        batches = (arguments.rounds + 2) * STEPS
        ways = [
            Way(name, 1, 1, our_rounds, (batches, ONE_THREAD, compiled))
            for name, compiled in (("as it is", False), ("compiled", True))
        ]
        show("torch.compile, 1 thread", ways, speeds(ways, arguments.rounds, STEPS * BATCH))


if __name__ == "__main__":
    main()
