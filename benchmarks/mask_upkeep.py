"""What keeping pruned weights at zero costs: uv run python benchmarks/mask_upkeep.py.

Times the training loop with and without a mask in turn, on the network, data and engine of
the `digits` study; and, because that difference drowns in noise, the upkeep by itself: the
multiplication of all gradients by their masks.
"""

import itertools
import os
import statistics
import time

import torch

from lthdask.data.readers import load
from lthdask.lottery import runs
from lthdask.lottery.experiment import Experiment
from lthdask.pruning.rule import prunable_weights
from lthdask.study import Study
from lthdask.training.loop import train

ROUNDS = 20
STEPS = 8


def main() -> None:
    study = Study.read("digits")
    experiment = Experiment(
        study.network,
        load(study.data),
        study.recipe,
        study.pruning,
        study.seed,
        study.engine.chosen(),
    )
    torch.set_num_threads(experiment.engine.threads)
    dense = next(runs.train_dense(experiment, 0))[0]
    network = experiment.build()
    # A mask that prunes nothing: the same numbers are trained with and without it.
    mask_of_ones = {
        name: torch.ones_like(weight, dtype=torch.bool)
        for name, weight in prunable_weights(network).items()
    }
    ways = {"no mask": None, "mask": mask_of_ones}
    times: dict[str, list[float]] = {name: [] for name in [*ways, "upkeep"]}
    for _ in range(ROUNDS + 1):
        for name, mask in ways.items():
            steps = train(
                network,
                experiment.data,
                study.recipe,
                dense,
                seed=0,
                replicate=0,
                mask=mask,
                engine=experiment.engine,
                due=itertools.cycle([*[False] * (STEPS - 1), True]).__next__,
            )
            next(steps)  # the first steps set up and warm up
            began = time.process_time()
            next(steps)
            times[name].append((time.process_time() - began) / STEPS)
        weights = dict(network.named_parameters())
        gradients = [weights[name].grad for name in mask_of_ones]
        masks = [torch.empty_like(weights[n]).copy_(m) for n, m in mask_of_ones.items()]
        began = time.process_time()
        for _ in range(STEPS):
            torch._foreach_mul_(gradients, masks)
        times["upkeep"].append((time.process_time() - began) / STEPS)
    medians = {name: statistics.median(taken[1:]) for name, taken in times.items()}
    threads, load1 = torch.get_num_threads(), os.getloadavg()[0]
    print(f"torch {torch.__version__}, {threads} thread, load {load1:.1f}")
    print(f"CPU time of a step, median of {ROUNDS} interleaved rounds of {STEPS} steps")
    for name, median in medians.items():
        print(f"{name:8} {1000 * median:7.2f} ms")
    print(f"mask / no mask   {medians['mask'] / medians['no mask']:.3f}")
    print(f"upkeep / no mask {medians['upkeep'] / medians['no mask']:.4f}")


if __name__ == "__main__":
    main()
