"""Whether cohorts end where their models end alone, on a GPU: uv run python benchmarks/equal.py.

tests/test_cohort.py asks the same of a CPU, whatever else is there. Three models of one start
are trained for an epoch: under no mask, without half of the weights, and without nine tenths;
alone with plain steps, and side by side with recorded ones. In float64, where no kernel of ours
runs, they may differ by 1e-9; the networks are narrow, as in that test. In float32 the kernels
run, in whole networks, and a single step is compared with its own length, as the self-check
does. Also compared are a cohort that goes on from a state inside an epoch, and one in which a
model diverges.

Prints a line for each comparison, ends with 1 if one fails. `--device cpu` tries the file
without a GPU, and so without kernels and graphs.
"""

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from lthdask.data.batches import Data, Images
from lthdask.networks.build import Network, build
from lthdask.networks.stack import stack
from lthdask.pruning.masks import Mask, draw_mask
from lthdask.pruning.rule import Pruning, prunable_weights
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.cohort import train_cohort
from lthdask.training.engine import Engine
from lthdask.training.loop import Diverged, Outcome, train
from lthdask.training.recipe import Optimizer, Recipe, Schedule

STEPS, CLASSES = 2, 10
SGD = Optimizer("sgd", rate=2**-4, momentum=0.9, weight_decay=5e-4)
ADAM = Optimizer("adam", rate=2**-7, weight_decay=1e-3)
"""Rates that float32 holds: a recorded step has its rate in a tensor of float32. Rounded, 0.05
moved a ResNet-20 by 4e-9 and MobileNetV2 (`small`) by 2e-6, on an H100 as on a CPU."""
EXACT = 1e-9
EXACT_UNDER_ADAM = 1e-6
"""Of MobileNetV2: a bias between two batch norms has no gradient but rounding, which Adam
multiplies by up to rate / 1e-8."""
OF_A_STEP = 0.1
"""The self-check's: sums in another order moved a step by 0.003 of its length."""


@dataclass(frozen=True)
class Case:
    """A network that is trained, and how."""

    network: Network
    size: int
    optimizer: Optimizer
    device: torch.device
    batch: int = 16
    exact: float = EXACT

    def __str__(self) -> str:
        """Return what a line calls it."""
        form = f" {self.network.form}" if self.network.name == "mobilenet_v2" else ""
        width = f" of width {self.network.width:g}" if form else ""
        return f"{self.network.name}{form}{width}, {self.size} pixels, {self.optimizer.name}"


class Trained:
    """Three models of a case from checkpoint 1, under three masks, in one type of numbers."""

    def __init__(self, case: Case, dtype: torch.dtype) -> None:
        self.case, self.dtype = case, dtype
        # Of float64, too: autocast is off, and the weights say in what is computed.
        self.engine = Engine(case.device.type, "float32")  # type: ignore[arg-type]
        schedule = Schedule("linear", warmup_epochs=1)
        self.recipe = Recipe(2, case.batch, case.optimizer, schedule, label_smoothing=0.1)
        rates = [self.recipe.rate(1, step, STEPS) for step in range(STEPS)]
        assert rates == torch.tensor(rates).tolist(), f"float32 rounds one of {rates}"

    @cached_property
    def data(self) -> Data:
        """Noise, brighter in rows of the class's own: of noise alone, a network dies."""
        random = torch.Generator().manual_seed(0)
        size = self.case.size

        def split(count: int) -> Images:
            labels = torch.randint(CLASSES, (count,), generator=random)
            pixels = torch.randint(100, (count, 3, size, size), generator=random)
            bright = torch.arange(size) * CLASSES // size == labels[:, None]
            pixels += 150 * bright[:, None, :, None]
            return Images(pixels.byte(), labels)

        mean, std = (torch.full((3, 1, 1), v, dtype=self.dtype) for v in (65.0, 54.0))
        parts = split(self.case.batch * STEPS), split(300), split(300)
        return Data(*parts, CLASSES, mean, std, ("crop", "flip")).to(self.case.device)

    def network(self) -> torch.nn.Module:
        """Return the network of checkpoint 0."""
        torch.manual_seed(0)  # drawn on the CPU, the same for every device
        made = build(self.case.network, (3, self.case.size, self.case.size), CLASSES)
        made = made.to(self.case.device, self.dtype)
        laid_out: torch.nn.Module = made.to(memory_format=torch.channels_last)
        return laid_out

    @cached_property
    def start(self) -> Checkpoint:
        """Checkpoint 1: with momentum and batch-norm statistics."""
        network = self.network()
        first = Checkpoint(0, {n: t.clone() for n, t in network.state_dict().items()})
        run = train(network, self.data, self.recipe, first, **self._rest(graphs=False))
        return next(run).states()[0].copy()

    @cached_property
    def masks(self) -> list[Mask]:
        """Nothing pruned, half of the weights, nine tenths; by LAMP, as a study does it.

        At random, nine tenths leave channels that hardly vary, and batch norm multiplies what
        rounding makes of them: 3e-6 in float64, on a CPU.
        """
        final = {n: self.start.weights[n].cpu() for n in prunable_weights(self.network())}
        drawn = [draw_mask(final, share, Pruning("lamp"), frozenset())[0] for share in (0.5, 0.9)]
        device = self.case.device
        return [{}, *({n: kept.to(device) for n, kept in mask.items()} for mask in drawn)]

    def alone(self, model: int, **how: Any) -> Iterator[Checkpoint]:
        """Yield the states of one model that is trained alone."""
        mask, network = self.masks[model], self.network()
        run = train(network, self.data, self.recipe, self.start, mask=mask, **self._rest(**how))
        return (found.states()[0].copy() for found in run)

    def together(
        self, starts: list[Checkpoint] | None = None, **how: Any
    ) -> Iterator[tuple[list[Checkpoint], Sequence[Outcome]]]:
        """Yield the states of the models side by side, and what was found of them."""
        starts, rest = starts or [self.start] * 3, self._rest(**how)
        run = train_cohort(self.network(), self.data, self.recipe, starts, self.masks, **rest)
        return (([s.copy() for s in found.states()], found.outcomes) for found in run)

    def _rest(self, each_step: bool = False, seed: int = 3, graphs: bool = True) -> dict[str, Any]:
        engine = replace(self.engine, graphs=graphs)
        return {"seed": seed, "replicate": 0, "engine": engine, "due": lambda: each_step}


def apart(one: Checkpoint, other: Checkpoint) -> float:
    """Return the largest difference between two states at the same point of training."""
    assert (one.epoch, one.step) == (other.epoch, other.step)
    pairs = [(tensor, other.weights[name]) for name, tensor in one.weights.items()]
    for name, buffers in one.buffers.items():
        pairs += [(tensor, other.buffers[name][buffer]) for buffer, tensor in buffers.items()]
    differences = (float((a.double() - b.double()).abs().max()) for a, b in pairs)
    return largest(abs(one.loss - other.loss), *differences)


def largest(*values: float) -> float:
    """Return the largest; what is no number is larger than all, which `max` may pass over."""
    return max(values, key=lambda value: math.inf if math.isnan(value) else value)


def distance(one: Checkpoint, other: Checkpoint) -> float:
    """Return how far the trained weights of two states are apart."""
    squares = [
        float((one.weights[name].double() - other.weights[name].double()).square().sum())
        for name in one.buffers
    ]
    return float(sum(squares) ** 0.5)


def require_told_apart(off: float, limit: float) -> None:
    """Stop where another order of the data is not seen either: then nothing was compared."""
    if not off > 2 * limit:
        raise AssertionError(f"another order of the data is only {off:.1e} off")


def each_ends_as_alone(case: Case) -> tuple[float, float, str]:
    """Compare an epoch in float64: side by side in recorded steps, alone in plain ones."""
    at = Trained(case, torch.float64)
    *_, (ends, _) = at.together()
    alone = [[*at.alone(model, graphs=False)][-1] for model in range(3)]
    elsewhere = [[*at.alone(model, graphs=False, seed=4)][-1] for model in range(3)]
    for one, other in zip(alone, elsewhere, strict=True):
        require_told_apart(apart(one, other), case.exact)
    pairs = zip(alone, ends, strict=True)
    return largest(*(apart(*pair) for pair in pairs)), case.exact, "in float64, after an epoch"


def resumed_ends_as_undisturbed(case: Case) -> tuple[float, float, str]:
    """Compare a cohort with one that went on from its state after a step, in float64."""
    at = Trained(case, torch.float64)
    every = [*at.together(each_step=True)]
    (inside, _), (ends, _) = every[0], every[-1]
    assert (inside[0].epoch, inside[0].step) == (1, 1)
    *_, (again, _) = at.together(inside)
    off = largest(*map(apart, again, ends))
    return off, case.exact, "in float64, resumed inside an epoch"


def others_do_not_see_one_diverge(case: Case) -> tuple[float, float, str]:
    """Compare the two models beside one that is no number with those beside a sound one."""
    at = Trained(case, torch.float64)
    # In plain steps: a recording is given up where a state is no number, as it equals nothing.
    *_, (sound, _) = at.together(graphs=False)
    name = next(iter(at.masks[1]))
    infected = at.start.weights | {name: torch.full_like(at.start.weights[name], torch.nan)}
    starts = [at.start, replace(at.start, weights=infected), at.start]
    *_, (ends, outcomes) = at.together(starts, graphs=False)
    if not isinstance(outcomes[1], Diverged):
        raise AssertionError("the model that diverged was not noticed")
    off = largest(*(apart(ends[model], sound[model]) for model in (0, 2)))
    bits = ", in the same bits" if off == 0 else ""
    return off, case.exact, f"in float64, beside a model that diverges{bits}"


def a_step_with_kernels_is_one_without(case: Case) -> tuple[float, float, str]:
    """Compare a step in float32 with one of each model alone, which has PyTorch's kernels."""
    at, off = Trained(case, torch.float32), 0.0
    fused = stack(at.network(), 3).fused
    if case.device.type == "cuda" and not fused:
        raise AssertionError("our own kernels are not used")
    ends, _ = next(at.together(each_step=True))
    for model, end in enumerate(ends):
        alone = next(at.alone(model, each_step=True, graphs=False))
        mask, weights = at.masks[model], at.start.weights
        laid = {n: t * mask[n] if n in mask else t for n, t in weights.items()}
        step = distance(replace(at.start, weights=laid), alone)
        elsewhere = next(at.alone(model, each_step=True, graphs=False, seed=4))
        require_told_apart(distance(elsewhere, alone) / step, OF_A_STEP)
        off = largest(off, distance(end, alone) / step)
    how = "with" if fused else "without"
    return off, OF_A_STEP, f"in float32, of a step's length, {how} our own kernels"


Check = Callable[[Case], tuple[float, float, str]]
"""Returns how far off something is, how far it may be, and what was compared."""

IN_FLOAT64: list[Check] = [
    each_ends_as_alone,
    resumed_ends_as_undisturbed,
    others_do_not_see_one_diverge,
]


def comparisons(device: torch.device) -> Iterator[tuple[Case, Check]]:
    small = Network("mobilenet_v2", "small", 0.25)
    for network, size, optimizer, exact in (
        (Network("mobilenet_v2", "imagenet", 0.25), 32, SGD, EXACT),
        (small, 8, SGD, EXACT),
        (small, 8, ADAM, EXACT_UNDER_ADAM),
        (Network("resnet20"), 8, SGD, EXACT),
        (Network("resnet20"), 8, ADAM, EXACT),
        (Network("lenet_300_100"), 8, SGD, EXACT),
        (Network("lenet_300_100"), 8, ADAM, EXACT),
    ):
        case = Case(network, size, optimizer, device, exact=exact)
        yield from ((case, check) for check in IN_FLOAT64)
    for network in (
        Network("mobilenet_v2"),
        Network("mobilenet_v2", "small"),
        Network("resnet20"),
    ):
        yield Case(network, 32, SGD, device, batch=64), a_step_with_kernels_is_one_without


def holds(case: Case, check: Check) -> bool:
    """Print what a check finds; whatever it raises is its finding, a fallback too."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            off, limit, how = check(case)
            held, found = off <= limit, f"{off:.1e} off, at most {limit:.0e}; {how}"
        except Exception as problem:
            held, found = False, f"{check.__name__}: {type(problem).__name__}: {problem}"
    # A warning is said in any case; one of a recorded step or a kernel that is given up fails.
    said = list(dict.fromkeys(str(warning.message) for warning in warned))
    held = held and not any("without CUDA graphs" in s or "without kernels" in s for s in said)
    seconds = time.perf_counter() - began
    print(f"{'ok    ' if held else 'FAILED'}  {case}: {found} ({seconds:.1f} s)", flush=True)
    for sentence in said:
        print(f"        warning: {sentence}", flush=True)
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = torch.device(parser.parse_args().device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here; --device cpu tries this file without one")
        return 2
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(f"torch {torch.__version__}, {name}", flush=True)
    # Of both sides, so that TF32 is not what is measured.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(1)  # of a CPU, where more are slower for networks this small
    began = time.perf_counter()
    held = [holds(case, check) for case, check in comparisons(device)]
    failed, seconds = len(held) - sum(held), time.perf_counter() - began
    outcome = f"{failed} of {len(held)} failed" if failed else f"all {len(held)} hold"
    print(f"{outcome} on {name}, in {seconds:.0f} s")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
