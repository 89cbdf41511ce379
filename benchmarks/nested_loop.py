"""A grid against the plain nested loop: uv run python benchmarks/nested_loop.py [--part PART].

count: the epochs of a 16×16 grid with T = 16, times how much faster an epoch is (as in
engine.py). end: cells per hour of a smaller grid, MobileNetV2 on the digits at 32×32 pixels,
by `lthdask.run` on two workers, and by the loop that one would write, one after the other.
"""

import argparse
import copy
import os
import tempfile
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision.models
from engine import BATCH, STEPS, ratio, require_equal, speeds, ways_to_train
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lthdask.cluster.client import open_client
from lthdask.data.batches import Data
from lthdask.data.readers import load
from lthdask.driver.remaining import epochs_to_train, plain_epochs
from lthdask.flow import run
from lthdask.grid import Grid
from lthdask.study import Study

PARTS = ("count", "end")
DIGITS = 1297
"""Images to train on or to set aside."""
THRESHOLDS = (0.2, 0.5, 0.8, 0.9)


def plain_loop(study: Study, data: Data) -> dict[tuple[float, int], float]:
    """Train the grid as one would write it down; return test accuracies, dense at (0, 0)."""
    recipe, settings = study.recipe, study.recipe.optimizer
    pixels, labels = whole(data, data.train)
    batches = DataLoader(TensorDataset(pixels, labels), recipe.batch_size, True, drop_last=True)
    held_out = [whole(data, split) for split in (data.validation, data.test)]
    network = torchvision.models.mobilenet_v2(num_classes=10, dropout=0.0)

    def train(masks: dict[str, Tensor]) -> tuple[float, list[dict[str, Tensor]]]:
        momentum, decay = settings.momentum, settings.weight_decay
        optimizer = torch.optim.SGD(network.parameters(), settings.rate, momentum, 0, decay)
        kept = [copy.deepcopy(network.state_dict())]
        for epoch in range(recipe.epochs):
            network.train()
            for step, (images, of_image) in enumerate(batches):
                optimizer.param_groups[0]["lr"] = recipe.rate(epoch, step, len(batches))
                optimizer.zero_grad()
                F.cross_entropy(network(images), of_image).backward()
                optimizer.step()
                with torch.no_grad():
                    for name, weight in network.named_parameters():
                        if name in masks:
                            weight.mul_(masks[name])
            accuracies = [accuracy(network, *split) for split in held_out]
            if not masks:
                kept.append(copy.deepcopy(network.state_dict()))
        return accuracies[1], kept

    dense, checkpoints = train({})
    found = {(0.0, 0): dense}
    for threshold in study.grid.thresholds:
        masks = {}
        for name, weight in network.named_parameters():
            if weight.dim() > 1:
                scores = checkpoints[-1][name].abs()
                masks[name] = scores > scores.flatten().kthvalue(int(threshold * scores.numel()))[0]
        for k in study.grid.rewind_epochs:
            start = {n: t * masks[n] if n in masks else t for n, t in checkpoints[k].items()}
            network.load_state_dict(start)
            found[threshold, k], _ = train(masks)
    return found


def whole(data: Data, split: object) -> tuple[Tensor, Tensor]:
    """Return the normalised images of a split in three channels, and their labels."""
    images, labels = zip(*data.evaluation(split), strict=True)  # type: ignore[arg-type]
    return torch.cat(images).expand(-1, 3, -1, -1).contiguous(), torch.cat(labels)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy of the network on these images."""
    network.eval()
    with torch.no_grad():
        right = [
            (network(some).argmax(1) == of_some).sum()
            for some, of_some in zip(images.split(250), labels.split(250), strict=True)
        ]
    return float(sum(right)) / len(labels)


@dataclass(frozen=True)
class Timed:
    """What a way took: cells, dense run included in the time; accuracies, dense at (0, 0)."""

    wall: float
    cpu: float
    found: dict[tuple[float, int], float]

    @property
    def per_hour(self) -> float:
        """Cells per hour."""
        return 3600 * (len(self.found) - 1) / self.wall


def plain(study: Study) -> Timed:
    """Time the plain loop, on every thread."""
    data = load(study.data)
    wall, cpu = time.perf_counter(), time.process_time()
    found = plain_loop(study, data)
    return Timed(time.perf_counter() - wall, time.process_time() - cpu, found)


def ours(study: Study) -> Timed:
    """Time `run` on two workers, which have imported torch, as the plain loop has."""
    with (
        tempfile.TemporaryDirectory() as out,
        open_client(2, deployment="local", say=lambda line: None) as client,
    ):
        client.run(_warm_up)
        began, before = time.perf_counter(), sum(client.run(time.process_time).values())
        results = run(study, client, f"{out}/run")
        wall = time.perf_counter() - began
        cpu = sum(client.run(time.process_time).values()) - before
    cells = results.test_accuracy.sel(arm="ticket").isel(replicate=0) / 100
    found = {(q, k): float(cells.sel(threshold=q, rewind_epoch=k)) for q, k in pairs(study)}
    dense = results.dense_test_accuracy.isel(replicate=0) / 100
    return Timed(wall, cpu, {(0.0, 0): float(dense)} | found)


def _warm_up() -> None:
    import lthdask.worker.tasks  # noqa: F401


def pairs(study: Study) -> list[tuple[float, int]]:
    """Return (threshold, rewind epoch) of every cell."""
    return [(q, k) for q in study.grid.thresholds for k in study.grid.rewind_epochs]


def show_count(rounds: int) -> None:
    require_equal()
    ways = ways_to_train(rounds)[:2]
    defaults, ours = speeds(ways, rounds, STEPS * BATCH)
    faster = ratio(ours, defaults)
    grid = Grid(tuple((i + 1) / 17 for i in range(16)), tuple(range(16)))
    study = Study.read("digits").changed({"recipe.epochs": "16"})
    fewer, more = epochs_to_train(study, list(grid.cells()), 1), plain_epochs(study, 256, 1)
    print("\n| 16×16 grid, T = 16 | epochs | times as fast an epoch | cells per hour |")
    print("|---|---|---|---|")
    print(f"| plain nested loop | {more} | 1 | 1 |")
    print(f"| {ways[1].name} | {fewer} | {faster:.2f} | {more / fewer * faster:.2f} × |")


def show_end(epochs: int, images: int) -> None:
    ks = [k * epochs // 4 for k in range(4)]
    study = Study.read("digits").changed(
        {
            "recipe.epochs": str(epochs),
            "data.validation": str(DIGITS - images),
            "pruning.score": "layerwise",
            "grid.thresholds": ",".join(map(str, THRESHOLDS)),
            "grid.rewind_epochs": ",".join(map(str, ks)),
            "keep_until": str(ks[-1]),
        }
    )
    one, other = plain(study), ours(study)
    cells = list(study.grid.cells())
    fewer, more = epochs_to_train(study, cells, 1), plain_epochs(study, len(cells), 1)
    print(f"\n| {len(cells)} cells, T = {epochs}, {images} images | epochs | s | CPU s | cells/h |")
    print("|---|---|---|---|---|")
    for name, count, took in (("plain nested loop", more, one), ("ours", fewer, other)):
        print(f"| {name} | {count} | {took.wall:.0f} | {took.cpu:.0f} | {took.per_hour:.1f} |")
    print(f"\nours / plain: {other.per_hour / one.per_hour:.2f} × the cells per hour")
    print("\n| test accuracy | plain | ours |")
    print("|---|---|---|")
    at_start = [(q, 0) for q in THRESHOLDS]  # there, both train the same T epochs
    print(f"| dense | {one.found[0.0, 0]:.3f} | {other.found[0.0, 0]:.3f} |")
    for at in at_start:
        print(f"| threshold {at[0]}, k = 0 | {one.found[at]:.3f} | {other.found[at]:.3f} |")
    print("One run each of other seeds, on 500 test images: ± 0.02 in 0.95 is noise.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="both by default")
    parser.add_argument("--rounds", type=int, default=12, help="of the speed of an epoch")
    parser.add_argument("--epochs", type=int, default=16, help="T of the smaller grid")
    parser.add_argument("--images", type=int, default=1097, help="to train the smaller grid on")
    arguments = parser.parse_args()
    parts = arguments.part or PARTS
    threads, load1 = torch.get_num_threads(), os.getloadavg()[0]
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {threads} threads, load {load1:.1f}")
    if "count" in parts:
        show_count(arguments.rounds)
    if "end" in parts:
        show_end(arguments.epochs, arguments.images)


if __name__ == "__main__":
    main()
