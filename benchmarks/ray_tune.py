"""Against Ray Tune: uv run --with "ray[tune]" python benchmarks/ray_tune.py [--epochs N ...].

The same trainable, a few epochs of a small network on the digits, as a grid on two workers:
through the queue of lthdask, and through Ray Tune as a function, as a class, and as a class
with `reuse_actors=True`. Both clusters are up before, and every way has run once; rounds are
interleaved, equal losses are asserted, and what counts is the ratio of the makespans.

    ... benchmarks/ray_tune.py --seconds 0.1 1 --cells 1000 --rounds 1 --ways lthdask reuse_actors

has cells that sleep: what is left is what the two cost. 1,000 of a second take each of them at
least 500 s on two workers.
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
    # Files that nobody asked for: a JSON, a CSV and a TensorBoard log of each trial, and the
    # state of the whole experiment again and again.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
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
Body = Work | float
"""What a cell is: training, or so many seconds of sleep."""


def work_of(epochs: int) -> Work:
    """Return what a worker needs to know to train for so many epochs."""
    study = Study.read("digits").changed(SMALL | {"recipe.epochs": str(epochs)})
    return Work(study, study.engine.chosen(), Folder(Path("runs/none")))


def train(body: Body, cell: int) -> float:
    """Train the cell's own network, on one thread; return its last loss. Or else sleep."""
    if isinstance(body, float):
        time.sleep(body)
        return float(cell)
    torch.set_num_threads(1)
    *_, (_, last) = runs.train_dense(body.experiment(), cell)
    assert isinstance(last, EpochMetrics)
    return last.train_loss


def _in_a_task(body: Body, cell: int, here: TaskContext) -> tuple[int, float]:
    return cell, train(body, cell)


def lthdask(client: Client, body: Body, cells: int) -> Losses:
    """Run the cells through the queue."""
    queue, landed = Queue(client), list[Any]()
    for cell in range(cells):
        queue.add(Task(f"cell-{cell}", _in_a_task, (body, cell), then=landed.append))
    queue.run()
    return dict(landed)


class Trainable(tune.Trainable):
    """A cell as Ray Tune's class: one step is the whole cell."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a cell."""
        self.config = config

    def step(self) -> dict[str, Any]:
        """Train it."""
        return {"loss": train(self.config["body"], self.config["cell"]), "done": True}

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
    tune.report({"loss": train(config["body"], config["cell"])})


def ray_tune(trainable: Any, body: Body, cells: int, reuse: bool | None = None) -> Losses:
    """Run the cells through Ray Tune; `reuse` of actors is as Ray has it by default."""
    with tempfile.TemporaryDirectory() as out:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"cell": tune.grid_search(list(range(cells))), "body": body},
            tune_config=tune.TuneConfig(reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=out, verbose=0),
        )
        results = tuner.fit()
    assert not results.errors, results.errors
    return {result.config["cell"]: result.metrics["loss"] for result in results}


def compare(ways: dict[str, Callable[[Body, int], Losses]], body: Body, given: Any) -> None:
    """Print what each way takes for such cells."""
    if isinstance(body, float):
        what = f"{given.cells} cells of {body:g} s of sleep"
        expected = {cell: float(cell) for cell in range(given.cells)}
    else:
        train(body, 0)
        began = time.process_time()
        expected = {cell: train(body, cell) for cell in range(given.cells)}
        alone = (time.process_time() - began) / given.cells
        epochs = body.study.recipe.epochs
        what = f"{given.cells} cells of {epochs} epochs, {alone:.2f} s of CPU each in the driver"
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(given.rounds + 1):
        for name, run in ways.items():
            began = time.perf_counter()
            losses = run(body, given.cells if number else WORKERS)
            times[name].append(time.perf_counter() - began)
            assert losses.items() <= expected.items(), (name, losses, expected)
    print(f"{what}:")
    ours = times["lthdask"][1:]
    for name, taken in times.items():
        ratios = [their / our for their, our in zip(taken[1:], ours, strict=True)]
        beside = ""
        if isinstance(body, float):
            most = median(taken[1:]) * WORKERS / given.cells - body
            beside = f", {1000 * most:.1f} ms of a worker beside each cell"
        print(
            f"  {name:24} {median(taken[1:]):7.2f} s, {median(ratios):.2f} of lthdask's "
            f"({min(ratios):.2f}..{max(ratios):.2f}){beside}  [load {os.getloadavg()[0]:.1f}]",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    cells = parser.add_mutually_exclusive_group()
    cells.add_argument(
        "--epochs", type=int, nargs="+", default=[5, 50], help="of a cell: 0.1 and 1 s"
    )
    cells.add_argument("--seconds", type=float, nargs="+", help="cells that sleep for so long")
    parser.add_argument(
        "--ways", nargs="+", choices=["lthdask", "function", "class", "reuse_actors"]
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
        ways: dict[str, Callable[[Body, int], Losses]] = {
            "lthdask": lambda body, cells: lthdask(client, body, cells),
            "Ray Tune, function": lambda body, cells: ray_tune(function, body, cells),
            "Ray Tune, class": lambda body, cells: ray_tune(Trainable, body, cells, False),
            "Ray Tune, reuse_actors": lambda body, cells: ray_tune(Trainable, body, cells, True),
        }
        asked = {"lthdask", *(given.ways or ways)}
        ways = {name: way for name, way in ways.items() if asked & {name, name.split(", ")[-1]}}
        for body in given.seconds or map(work_of, given.epochs):
            compare(ways, body, given)
        ray.shutdown()


if __name__ == "__main__":
    main()
