"""Cohorts on a GPU: uv run python benchmarks/gpu.py [--part PART].

speed: milliseconds of a step of one model of MobileNetV2 at 32×32 pixels, batch 128, in bfloat16:
one at a time as PyTorch launches it; one at a time, recorded as a CUDA graph; cohorts, with
PyTorch's kernels and with ours. Each way trains in its own loop, in interleaved rounds, and is
first shown to find the losses that one model finds alone. The roofline is the time that the
passes over the activations would take at the bandwidth of a copy, measured here. grid: the
16×16 grid, T = 16, on 50,000 images of noise around ten patterns, by `lthdask.run`, on one GPU.

--network takes the speed of another network, --cohorts of other sizes: the passes of the form
`small` move twelve times as much, and 64 models of it may not fit.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np
import torch
from engine import BATCH, DECAY, MOMENTUM, RATE
from torch import nn

from lthdask.data.batches import Data, Images
from lthdask.events import Event
from lthdask.networks.build import Network, build
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.cohort import train_cohort
from lthdask.training.engine import Engine
from lthdask.training.loop import train
from lthdask.training.recipe import Optimizer, Recipe

PARTS = ("speed", "grid")
STEPS = 32
IMAGES = 50_000
ENGINE = Engine(device="cuda", precision="bfloat16")
EAGER = replace(ENGINE, graphs=False)
THEIRS = replace(ENGINE, kernels=False)


@dataclass(frozen=True)
class Way:
    """A way to train; `models` side by side, or one alone by the plain loop."""

    name: str
    models: int
    engine: Engine


ONE = Way("one at a time, eager", 1, EAGER)
GRAPH = Way("one at a time, CUDA graph", 1, ENGINE)
NETWORKS = {
    "mobilenet_v2": Network("mobilenet_v2"),
    "mobilenet_v2-small": Network("mobilenet_v2", "small"),
    "resnet20": Network("resnet20"),
}


def ways(cohorts: list[int]) -> list[Way]:
    """Return the ways that are compared; with PyTorch's kernels, the first cohort only."""
    theirs = Way(f"cohort of {cohorts[0]}, PyTorch's kernels", cohorts[0], THEIRS)
    return [ONE, GRAPH, theirs, *(Way(f"cohort of {count}", count, ENGINE) for count in cohorts)]


def noise(images: int) -> Data:
    """Return colour noise at 32×32 pixels on the GPU, cropped and flipped, in 10 classes."""
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> Images:
        pixels = torch.randint(256, (count, 3, 32, 32), generator=random, dtype=torch.uint8)
        return Images(pixels, torch.randint(10, (count,), generator=random))

    mean, std = torch.full((3, 1, 1), 128.0), torch.full((3, 1, 1), 74.0)
    data = Data(split(images), split(250), split(250), 10, mean, std, ("crop", "flip"))
    return data.to(torch.device("cuda"))


def losses(way: Way, kind: Network, data: Data, every: int) -> Iterator[float]:
    """Train; yield the sum of the losses of the first model each `every` steps."""
    torch.manual_seed(0)
    network = build(kind, (3, 32, 32), 10).cuda()
    network.to(memory_format=torch.channels_last)
    recipe = Recipe(1, BATCH, Optimizer("sgd", RATE, MOMENTUM, DECAY))
    start = Checkpoint(0, {name: t.clone() for name, t in network.state_dict().items()})
    mask = {n: torch.ones_like(p, dtype=torch.bool) for n, p in network.named_parameters()}
    mask = {name: kept for name, kept in mask.items() if kept.dim() > 1}
    due = cycle([*[False] * (every - 1), True])
    rest = {"seed": 0, "replicate": 0, "engine": way.engine, "due": lambda: next(due)}
    if way.models == 1:
        run = train(network, data, recipe, start, mask=mask, **rest)
    else:
        starts, masks = [start] * way.models, [mask] * way.models
        run = train_cohort(network, data, recipe, starts, masks, **rest)
    for found in run:
        yield found.states()[0].loss


def require_equal(compared: list[Way], kind: Network, data: Data) -> None:
    """Stop unless each way finds the loss of two steps in float32 that one alone finds.

    Of the second, batch norm over single pixels makes rounding the third digit.
    """
    torch.backends.cudnn.allow_tf32 = False
    found = {}
    for way in compared:
        two = losses(replace(way, engine=replace(way.engine, precision="float32")), kind, data, 1)
        first = next(two)
        found[way.name] = (first, next(two) - first)
        del two  # what it holds of the GPU, the next way may need for its recording
        torch.cuda.empty_cache()
    for name, pair in found.items():
        off = [abs(a / b - 1) for a, b in zip(pair, found[ONE.name], strict=True)]
        print(f"{name}: the first two losses are {off[0]:.1e} and {off[1]:.1e} off")
        if off[0] > 1e-4 or off[1] > 3e-2:
            raise SystemExit("the ways do not train the same: no speed is compared")
    torch.backends.cudnn.allow_tf32 = True


def seconds(rounds: int, compared: list[Way], kind: Network, data: Data) -> list[list[float]]:
    """Return, per way, the seconds of a step of one model in each interleaved round."""
    runs = [losses(way, kind, data, STEPS) for way in compared]
    for run in runs:
        next(run)  # warms up
    found: list[list[float]] = [[] for _ in compared]
    for _ in range(rounds):
        for way, run, times in zip(compared, runs, found, strict=True):
            torch.cuda.synchronize()
            began = time.perf_counter()
            next(run)  # waits for the GPU, as it reads the losses
            times.append((time.perf_counter() - began) / STEPS / way.models)
    return found


def bytes_of_a_step(kind: Network) -> float:
    """Return how many bytes of activations PyTorch's passes move in a step of one model.

    Each pass reads or writes a tensor of bfloat16 once. Of a convolution, forward one over what
    it is given and one over what it returns, and backward two over each; of batch norm three and
    five, and of ReLU6 two and three. Weights are not counted, nor is what is no layer: of
    ResNet-20, ReLU and the sums with the shortcuts, so that its share of the roofline is too low.
    """
    network, moved = build(kind, (3, 32, 32), 10), 0

    def count(layer: nn.Module, given: tuple[torch.Tensor], found: torch.Tensor) -> None:
        nonlocal moved
        match layer:
            case nn.Conv2d():
                moved += 3 * given[0].numel() + 3 * found.numel()
            case nn.BatchNorm2d():
                moved += 8 * found.numel()
            case nn.ReLU6():
                moved += 5 * found.numel()

    for layer in network.modules():
        layer.register_forward_hook(count)
    network(torch.zeros(2, 3, 32, 32))
    return moved * 2 / 2 * BATCH


def bandwidth() -> float:
    """Return the bytes that a copy on the GPU reads and writes in a second."""
    source = torch.randint(256, (2**30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * len(source) / median(times)


def show_speed(rounds: int, name: str, cohorts: list[int]) -> None:
    data, kind, compared = noise(IMAGES), NETWORKS[name], ways(cohorts)
    require_equal(compared, kind, data)
    copied, moved = bandwidth(), bytes_of_a_step(kind)
    print(f"a copy moves {copied / 1e12:.2f} TB/s; the passes of a step {moved / 1e6:.0f} MB")
    found = seconds(rounds, compared, kind, data)
    print(f"\n| {name}, 32×32, batch 128 | ms | range | / eager | / graph | of the roofline |")
    print("|---|---|---|---|---|---|")
    for way, times in zip(compared, found, strict=True):
        eager, graph = (
            median(b / t for b, t in zip(base, times, strict=True)) for base in found[:2]
        )
        ms, least, most = (1000 * of(times) for of in (median, min, max))
        share = moved / copied / median(times)
        print(
            f"| {way.name} | {ms:.3f} | {least:.3f}..{most:.3f} | {eager:.1f} × | {graph:.2f} × "
            f"| {share:.0%} |"
        )


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes as MNIST's files hold them."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(header + array.tobytes())


def write_images(folder: Path) -> None:
    """Write 50,000 images to train on, 5,000 to validate and 10,000 to test, as MNIST's files."""
    random, raw = np.random.default_rng(0), folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    patterns = random.integers(0, 256, (10, 32, 32))
    for part, count in (("train", IMAGES + 5_000), ("t10k", 10_000)):
        labels = random.integers(0, 10, count, dtype=np.uint8)
        noise = random.integers(0, 256, (count, 32, 32), dtype=np.uint8)
        images = (0.2 * patterns[labels] + 0.8 * noise).astype(np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)


def show_grid(epochs: int, rewind_epochs: list[int]) -> None:
    from lthdask import Study, open_client, run

    thresholds = [round(1 - 0.7 ** (i + 1), 4) for i in range(16)]
    study = Study.parse(
        f"""
        name: gpu
        data: {{name: mnist, image_size: 32, validation: 5000, augmentation: [crop, flip]}}
        network: {{name: mobilenet_v2}}
        recipe:
          epochs: {epochs}
          batch_size: {BATCH}
          optimizer: {{name: sgd, rate: 0.05, momentum: 0.9, weight_decay: 5.0e-4}}
          schedule: {{name: linear, warmup_epochs: 1}}
        pruning: {{score: lamp}}
        grid: {{thresholds: {thresholds}, rewind_epochs: {rewind_epochs}}}
        matching_margin: 0.01
        """,
        "the benchmark",
    )
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        began = time.perf_counter()

        def watch(event: Event) -> None:
            if event.kind in ("dense", "cell", "warning"):
                spent = time.perf_counter() - began
                print(f"{spent:6.1f} s {event.kind} {event.name} {event.status}", flush=True)

        with open_client(1, deployment="local") as client:
            results = run(study, client, Path(folder) / "run", folder, watch=watch)
        took = time.perf_counter() - began
        cells = len(thresholds) * len(rewind_epochs)
        print(f"\n{cells} cells, T = {epochs}, k = {rewind_epochs}: {took:.0f} s with the workers")
        print(results.test_accuracy.squeeze().to_pandas().round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="both by default")
    most = IMAGES // BATCH // STEPS - 1  # one epoch, whose first steps warm up
    parser.add_argument("--rounds", type=int, default=7, choices=range(1, most + 1))
    parser.add_argument("--network", choices=NETWORKS, default="mobilenet_v2", help="of speed")
    parser.add_argument("--cohorts", type=int, nargs="+", default=[16, 64], help="of speed")
    parser.add_argument("--epochs", type=int, default=16, help="T of the grid")
    parser.add_argument("--rewind-epochs", type=int, default=16, help="0, 1, ... of the grid")
    arguments = parser.parse_args()
    parts = arguments.part or PARTS
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here, and nothing else is measured")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    if "speed" in parts:
        show_speed(arguments.rounds, arguments.network, arguments.cohorts)
    if "grid" in parts:
        show_grid(arguments.epochs, list(range(arguments.rewind_epochs)))


if __name__ == "__main__":
    main()
