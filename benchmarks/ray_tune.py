"""Against Ray Tune: uv run --with "ray[tune]" python benchmarks/ray_tune.py [--epochs N ...].

The same trainable, a few epochs of a small network on the digits, as a grid on two workers:
through the queue of lthdask, and through Ray Tune as a function, as a class, and as a class
with `reuse_actors=True`. Both clusters are up before, and every way has run once; rounds are
interleaved, equal losses are asserted, and what counts is the ratio of the makespans.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Started by `uv run`, Ray would have uv install every worker's packages once more.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

import ray
import torch
from distributed import Client
from ray import tune

from lthdask.cluster.client import open_client
from lthdask.cluster.queue import Queue, Task
from lthdask.events import TaskContext
from lthdask.lottery import runs
from lthdask.storage.folder import Folder
from lthdask.study import Study
from lthdask.training.loop import EpochMetrics
from lthdask.worker.work import Work

WORKERS = 2
SMALL = {
    "network.name": "lenet_300_100",
    "data.image_size": "8",
    "recipe.schedule.warmup_epochs": "0",
    "engine.device": "cpu",
    "engine.precision": "float32",
    "grid.thresholds": "0.5",
    "grid.rewind_epochs": "0",
    "keep_until": "0",
}
Losses = dict[int, float]


def work_of(epochs: int) -> Work:
    """Return what a worker needs to know to train for so many epochs."""
    study = Study.read("digits").changed(SMALL | {"recipe.epochs": str(epochs)})
    return Work(study, study.engine.chosen(), Folder(Path("runs/none")))


def train(work: Work, cell: int) -> float:
    """Train the cell's own network, on one thread; return its last loss."""
    torch.set_num_threads(1)
    *_, (_, last) = runs.train_dense(work.experiment(), cell)
    assert isinstance(last, EpochMetrics)
    return last.train_loss


def _in_a_task(work: Work, cell: int, here: TaskContext) -> tuple[int, float]:
    return cell, train(work, cell)


def lthdask(client: Client, work: Work, cells: int) -> Losses:
    """Run the cells through the queue."""
    queue, landed = Queue(client), list[Any]()
    for cell in range(cells):
        queue.add(Task(f"cell-{cell}", _in_a_task, (work, cell), then=landed.append))
    queue.run()
    return dict(landed)


class Trainable(tune.Trainable):
    """A cell as Ray Tune's class: one step is the whole cell."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a cell."""
        self.config = config

    def step(self) -> dict[str, Any]:
        """Train it."""
        return {"loss": train(self.config["work"], self.config["cell"]), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another cell, where an actor is used again."""
        self.config = new_config
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing is kept: the queue's cells here keep nothing, either."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was kept."""


def function(config: dict[str, Any]) -> None:
    """Train a cell, as Ray Tune's function."""
    tune.report({"loss": train(config["work"], config["cell"])})


def ray_tune(trainable: Any, work: Work, cells: int, reuse: bool | None = None) -> Losses:
    """Run the cells through Ray Tune; `reuse` of actors is as Ray has it by default."""
    with tempfile.TemporaryDirectory() as out:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"cell": tune.grid_search(list(range(cells))), "work": work},
            tune_config=tune.TuneConfig(reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=out, verbose=0),
        )
        results = tuner.fit()
    assert not results.errors, results.errors
    return {result.config["cell"]: result.metrics["loss"] for result in results}


def compare(ways: dict[str, Callable[[Work, int], Losses]], epochs: int, given: Any) -> None:
    """Print what each way takes for cells of so many epochs."""
    work = work_of(epochs)
    train(work, 0)
    began = time.process_time()
    expected = {cell: train(work, cell) for cell in range(given.cells)}
    alone = (time.process_time() - began) / given.cells
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(given.rounds + 1):
        for name, run in ways.items():
            began = time.perf_counter()
            losses = run(work, given.cells if number else WORKERS)
            times[name].append(time.perf_counter() - began)
            assert losses.items() <= expected.items(), (name, losses, expected)
    print(f"{given.cells} cells of {epochs} epochs, {alone:.2f} s of CPU each in the driver:")
    ours = times["lthdask"][1:]
    for name, taken in times.items():
        ratios = [their / our for their, our in zip(taken[1:], ours, strict=True)]
        print(
            f"  {name:24} {median(taken[1:]):7.2f} s, {median(ratios):.2f} of lthdask's "
            f"({min(ratios):.2f}..{max(ratios):.2f})  [load {os.getloadavg()[0]:.1f}]",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[5, 50], help="of a cell: 0.1 and 1 s"
    )
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved; the median counts")
    given = parser.parse_args()
    print(
        f"ray {ray.__version__}, torch {torch.__version__}, python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {WORKERS} workers of 1 thread"
    )
    with open_client(WORKERS, deployment="local", say=lambda line: None) as client:
        # In this order: begun after Ray, Dask's workers were not there after 75 s.
        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level=40)
        ways: dict[str, Callable[[Work, int], Losses]] = {
            "lthdask": lambda work, cells: lthdask(client, work, cells),
            "Ray Tune, function": lambda work, cells: ray_tune(function, work, cells),
            "Ray Tune, class": lambda work, cells: ray_tune(Trainable, work, cells, False),
            "Ray Tune, reuse_actors": lambda work, cells: ray_tune(Trainable, work, cells, True),
        }
        for epochs in given.epochs:
            compare(ways, epochs, given)
        ray.shutdown()


if __name__ == "__main__":
    main()
