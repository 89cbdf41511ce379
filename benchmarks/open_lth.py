"""Against open_lth's one-shot equivalent: uv run python benchmarks/open_lth.py --checkout PATH.

Its ResNet-20 under a mask, trained by its own loop from its own loader, an epoch with its test
pass; against ours in two processes of one thread. Same images, augmentation and batches, in
interleaved rounds. Then the grid: it trains a dense network per rewind epoch, we train one.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine import Way, ratio, show, speeds
from torch import nn

from lthdask.data.batches import Data
from lthdask.data.readers import DataSource, load
from lthdask.driver.remaining import epochs_to_train
from lthdask.grid import Grid
from lthdask.lottery import runs
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.ticket import Ticket
from lthdask.networks.build import Network
from lthdask.pruning.rule import Pruning, prunable_weights
from lthdask.study import Study
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.recipe import Optimizer, Recipe

BATCH, IMAGES = 64, 1280
RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4
REWIND_EPOCHS, THRESHOLDS, T = (0, 1, 2, 4), (0.5, 0.8, 0.9, 0.95), 10
FLOAT32 = Engine(device="cpu", precision="float32")
"""With what a measurement finds for its products, and folded evaluation."""
PATCHES = {  # what recent versions of PyTorch and NumPy need
    "models/base.py": (
        "class Model(abc.ABC, torch.nn.Module)",
        "class Model(torch.nn.Module, abc.ABC)",
    ),
    "training/optimizers.py": ("np.product", "np.prod"),
}


def patched(checkout: Path, folder: Path) -> Path:
    """Return a copy of the checkout that runs; the checkout stays as it is."""
    copy = folder / "open_lth"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git"))
    for name, (before, after) in PATCHES.items():
        text = (copy / name).read_text()
        (copy / name).write_text(text.replace(before, after))
    return copy


def digits(images: int) -> Data:
    """Return the digits at 32×32 pixels in three equal channels, moved and mirrored."""
    data = load(DataSource("digits", 32, 1, ("crop", "flip")))
    for split in (data.train, data.validation, data.test):
        split.images = split.images.expand(-1, 3, -1, -1).contiguous()  # type: ignore[union-attr]
    return replace(data, train=data.train.subset(torch.arange(images)))


def their_model(copy: str) -> Any:
    """Return their ResNet-20, on their platform."""
    sys.path.insert(0, copy)
    import models.registry
    import platforms.local
    import platforms.platform
    from foundations import hparams

    platforms.platform._PLATFORM = platforms.local.Platform()
    return models.registry.get(
        hparams.ModelHparams("cifar_resnet_20", "kaiming_normal", "uniform"), outputs=10
    )


def theirs(copy: str, images: int) -> Iterator[object]:
    """Train an epoch by their loop whenever it is asked, and test it."""
    model = their_model(copy)
    from datasets import base, cifar10
    from foundations import hparams
    from foundations.step import Step
    from pruning.mask import Mask
    from pruning.pruned_model import PrunedModel
    from torchvision.transforms import RandomCrop, RandomHorizontalFlip
    from training import standard_callbacks
    from training.train import train

    def loader(split: Any, transforms: list[Any]) -> Any:
        pixels = split.images.permute(0, 2, 3, 1).numpy()
        labels = np.asarray(split.labels)
        return base.DataLoader(cifar10.Dataset(pixels, labels, transforms), BATCH, num_workers=0)

    data = digits(images)
    train_loader = loader(data.train, [RandomHorizontalFlip(), RandomCrop(32, 4)])
    steps = train_loader.iterations_per_epoch
    settings = hparams.TrainingHparams(
        "sgd", RATE, "1ep", data_order_seed=0, momentum=MOMENTUM, weight_decay=DECAY
    )
    end = Step.from_epoch(1, 0, steps)
    tested = standard_callbacks.create_eval_callback("test", loader(data.test, []))
    callbacks = [standard_callbacks.run_at_step(end, tested)]
    pruned = PrunedModel(model, Mask.ones_like(model))
    with tempfile.TemporaryDirectory() as out:
        while True:
            train(settings, pruned, train_loader, out, callbacks, end_step=end)
            yield


def experiment(images: int, epochs: int, engine: Engine) -> Experiment:
    """Return the same experiment in our words."""
    recipe = Recipe(epochs, BATCH, Optimizer("sgd", RATE, MOMENTUM, DECAY))
    return Experiment(Network("resnet20"), digits(images), recipe, Pruning("global"), 0, engine)


def ours(images: int, epochs: int, engine: Engine) -> Iterator[object]:
    """Train an epoch of a ticket whose mask prunes nothing whenever it is asked."""
    one = experiment(images, epochs, engine)
    network = one.build()
    mask = {n: torch.ones_like(w, dtype=torch.bool) for n, w in prunable_weights(network).items()}
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return runs.train_ticket(one, 0, Ticket(Checkpoint(0, weights), mask, {}))


def require_equal(copy: str) -> None:
    """Stop unless both networks are the same function of images, given the same weights."""
    other = their_model(copy).eval()
    one: nn.Module = experiment(BATCH, 1, FLOAT32).build().eval()
    weights = zip(one.state_dict(), other.state_dict().values(), strict=True)
    one.load_state_dict(dict(weights))
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        apart = float((one(images) - other(images)).abs().max() / other(images).abs().max())
    print(f"logits of the two networks differ by {apart:.1e} of the greatest")
    if apart > 1e-4:
        raise SystemExit("the networks are not the same: no speed is compared")


def show_grid(ways: list[Way], found: list[list[tuple[float, float]]]) -> None:
    """Print how much faster the whole grid is: fewer epochs, each faster."""
    grid = Grid(THRESHOLDS, REWIND_EPOCHS)
    study = Study.read("digits").changed({"recipe.epochs": str(T)})
    cells = list(grid.cells())
    ours = epochs_to_train(study, cells, dense_runs=1)
    # Its dense runs are kept by rewind epoch: each is trained to T for its own masks.
    theirs = epochs_to_train(study, cells, dense_runs=len(REWIND_EPOCHS))
    print(f"\n| {len(cells)} cells, T = {T} | epochs | grid, times as fast |\n|---|---|---|")
    print(f"| open_lth | {theirs} | 1 |")
    for way, of_way in list(zip(ways, found, strict=True))[1:]:
        gain = theirs / ours * ratio(of_way, found[0])
        print(f"| {way.name} | {ours} | {gain:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True, help="of open_lth")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--images", type=int, default=IMAGES, help="in an epoch, at most 1,296")
    arguments = parser.parse_args()
    images, epochs = arguments.images // BATCH * BATCH, arguments.rounds + 2
    small = experiment(images, 1, FLOAT32)
    float32 = runs.choose_engine(FLOAT32, small).engine
    choice = runs.choose_engine(replace(FLOAT32, precision="auto"), small)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"best precision: {choice.engine.precision}: {choice.reason}")
    with tempfile.TemporaryDirectory() as folder:
        copy = str(patched(arguments.checkout, Path(folder)))
        require_equal(copy)
        ways = [Way("open_lth, 1 process, every thread", 1, 0, theirs, (copy, images))]
        for engine in dict.fromkeys((float32, choice.engine)):
            how = f"{engine.precision}, {engine.matmul}, {engine.evaluation}"
            name = f"ours, 2 processes × 1 thread, {how}"
            ways.append(Way(name, 2, 1, ours, (images, epochs, engine)))
        found = speeds(ways, arguments.rounds, images)
    show(f"ResNet-20, 32×32, batch {BATCH}, an epoch with its test", ways, found)
    show_grid(ways, found)


if __name__ == "__main__":
    main()
