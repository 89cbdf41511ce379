"""Self-check: whether, on this machine, the engine does what a lottery ticket grid rests on.

A small study of real digits is trained with the functions that train every study, and
looked at from outside: what was counted is compared with what the definitions say, never
with what the engine says about itself.
"""

import platform
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch

from lthdask.checks.small_study import (
    REPLICATE,
    THRESHOLD,
    Epochs,
    K,
    Trained,
    draw,
    in_float32,
    on_cpu,
    prunable,
    train,
    train_dense,
    unpruned,
)
from lthdask.lottery import drawing, runs
from lthdask.lottery.density import densities
from lthdask.lottery.experiment import Experiment
from lthdask.pruning.masks import Mask
from lthdask.training.checkpoint import Checkpoint

COHORT = (0.5, 0.8, 0.95)
"""Thresholds of the tickets that are trained side by side."""
TOLERANCE = 0.1
"""Share of a step's length by which two steps from one state may differ, where sums may be made
in another order, as on a GPU. Only single steps in float32 can be told apart: another order of
sums moved a step by 0.003 of its length, or 0.23 in bfloat16, and another order of the data by
0.42; over two whole epochs, it moved it as far as that does."""


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: str
    passed: bool
    text: str


def device_name(device: str) -> str:
    """Return what a device is called, such as ``cpu (x86_64)``."""
    name = platform.machine() if device == "cpu" else torch.cuda.get_device_name()
    return f"{device} ({name})"


def density_is_what_was_asked(trained: Trained) -> str:
    """Count the weights of a trained ticket that are not zero: N − ⌊threshold · N⌋."""
    last = trained.ticket[1][-1][0]
    weights = prunable(trained, last)
    total = sum(weight.numel() for weight in weights.values())
    left = sum(int(weight.count_nonzero()) for weight in weights.values())
    asked = total - int(Fraction(str(THRESHOLD)) * total)
    _require(left == asked, f"{left:,} of {total:,} weights are left; {asked:,} were asked for")
    said = densities(trained.experiment, last)[0]["density"]
    _require(
        said == left / total, f"the reported density is {said}, but the true one is {left / total}"
    )
    return f"{left:,} of {total:,} weights, to the weight"


def pruned_weights_stay_zero(trained: Trained) -> str:
    """Look at pruned weights and their buffers after every epoch."""
    optimizer, (drawn, epochs) = trained.experiment.recipe.optimizer, trained.ticket
    for checkpoint, _ in epochs:
        for name, kept in drawn.mask.items():
            buffers = checkpoint.buffers.get(name, {})
            for part, tensor in {"weights": checkpoint.weights[name], **buffers}.items():
                alive = int(tensor[~kept].count_nonzero()) if tensor.shape == kept.shape else 0
                where = f"of {name} after epoch {checkpoint.epoch}"
                _require(not alive, f"{alive:,} pruned {part} {where} are not zero")
    pruned = sum(int((~kept).sum()) for kept in drawn.mask.values())
    how = f"momentum {optimizer.momentum:g}, weight decay {optimizer.weight_decay:g}"
    return f"{pruned:,} are 0 after each of {len(epochs)} epochs, with {how}"


def checkpoints_are_not_changed(trained: Trained) -> str:
    """Compare the digests of checkpoints before and after cells have used them."""
    cells = [trained.ticket[1], train(trained, draw(trained, "lr_rewind"), "lr_rewind")]
    for epoch, digest in trained.digests.items():
        same = trained.dense[epoch].digest() == digest
        _require(same, f"checkpoint {epoch} has changed since it was made")
    return (
        f"{len(trained.digests)} checkpoints are as they were before {len(cells)} cells used them"
    )


def tickets_go_on_from_their_epoch(trained: Trained) -> str:
    """Train checkpoints under a mask that prunes nothing: they must do what the dense run did.

    Then they see the batches of epochs k + 1..T, at their rates, from the complete state.
    """
    exact = in_float32(trained.experiment)
    if exact.engine != trained.experiment.engine:
        trained = train_dense(exact)
    last = trained.experiment.recipe.epochs
    _require_epochs(trained.ticket[1], K + 1, last)
    apart = 0.0
    for k in range(K, last):
        start, there = unpruned(trained, k), trained.first_steps[k]
        run = runs.train_ticket(trained.experiment, REPLICATE, start, due=lambda: True)
        step = _distance(start.start, there)
        here = _distance(on_cpu(next(run)[0]), there) / step
        found = f"the first step of epoch {k + 1} ends {here:.1%} of a step off the dense run's"
        _require(here <= TOLERANCE, found)
        apart = max(apart, here)
    found = f"epochs {K + 1}..{last} begin at most {apart:.1%} of a step off the dense run's"
    if trained.experiment.engine.device != "cpu":
        return found
    end = train(trained, unpruned(trained, K))[-1][0]
    same = end.digest() == trained.dense[last].digest()
    _require(same, f"epochs {K + 1}..{last} do not end in the dense run's bits")
    return f"epochs {K + 1}..{last} end in the dense run's bits"


def the_mask_is_of_the_final_weights(trained: Trained) -> str:
    """Compare the masks of all k with one another, and with the order of the final weights."""
    epochs = range(trained.experiment.recipe.epochs)
    mask, *others = [draw(trained, "ticket", k).mask for k in epochs]
    for k, other in enumerate(others, 1):
        _require(_differing(mask, other) == 0, f"the mask of k={k} is not that of k=0")
    outranked = 0
    for name, weight in prunable(trained, trained.dense[len(epochs)]).items():
        pruned, kept = weight[~mask[name]].abs(), weight[mask[name]].abs()
        if len(pruned) and len(kept):
            outranked += int((pruned > kept.min()).sum())
    found = "pruned weights are larger, after training, than a kept one of their layer"
    _require(not outranked, f"{outranked:,} {found}")
    early = drawing.mask_at(trained.experiment, REPLICATE, THRESHOLD, trained.dense, K)
    differing = 100 * _differing(mask, early)
    return (
        f"it is the same for k = 0..{len(epochs) - 1}; "
        f"{differing:.1f} % of it differ from that of epoch {K}'s weights"
    )


def random_masks_are_over_unpruned_weights(trained: Trained) -> str:
    """Compare a random mask's counts with the ticket's, and its weights with checkpoint k."""
    ticket, drawn = trained.ticket[0].mask, draw(trained, "random_mask")
    _require(drawn.start.epoch == K, f"it starts at epoch {drawn.start.epoch}, not at {K}")
    zeroed = 0
    for name, kept in drawn.mask.items():
        count, wanted = int(kept.sum()), int(ticket[name].sum())
        _require(count == wanted, f"it keeps {count:,} weights of {name}, the ticket {wanted:,}")
        is_as_at_k = drawn.start.weights[name] == trained.dense[K].weights[name] * kept
        zeroed += int((~is_as_at_k).sum())
    _require(not zeroed, f"{zeroed:,} of its weights are not those of checkpoint {K}")
    elsewhere = _differing(drawn.mask, ticket)
    _require(elsewhere > 0, "it is the ticket's mask")
    return f"the ticket's count in each of {len(ticket)} layers, over checkpoint {K} as it was"


def reinit_is_new_and_trained_for_all_epochs(trained: Trained) -> str:
    """Compare a reinitialisation with the dense run's start, and count its epochs."""
    ticket, drawn = trained.ticket[0].mask, draw(trained, "reinit")
    _require(_differing(drawn.mask, ticket) == 0, "its mask is not the ticket's")
    _require(not drawn.origin.buffers, "its optimizer does not start afresh")
    kept = {name: drawn.start.weights[name][mask] for name, mask in drawn.mask.items()}
    old = sum(
        int((weight == trained.dense[0].weights[name][drawn.mask[name]]).sum())
        for name, weight in kept.items()
    )
    total = sum(len(weight) for weight in kept.values())
    _require(old <= total // 1000, f"{old:,} of {total:,} weights are the dense run's initial ones")
    last = trained.experiment.recipe.epochs
    _require_epochs(train(trained, drawn, "reinit"), 1, last)
    return f"{total - old:,} of {total:,} weights are new, trained for epochs 1..{last}"


def a_cohort_trains_each_ticket_as_alone(trained: Trained) -> str:
    """Train one step of several tickets side by side, and one of each alone."""
    experiment = in_float32(trained.experiment)
    drawn = [draw(trained, "ticket", threshold=threshold) for threshold in COHORT]
    starts, masks = [ticket.origin for ticket in drawn], [ticket.mask for ticket in drawn]
    cohort = runs.train_tickets(experiment, REPLICATE, starts, masks, due=lambda: True)
    with warnings.catch_warnings(action="error"):  # on a GPU without graphs or our own kernels
        together = next(cohort).states()
    apart = 0.0
    for threshold, ticket, found in zip(COHORT, drawn, together, strict=True):
        run = runs.train_ticket(experiment, REPLICATE, ticket, due=lambda: True)
        alone, beside_others = on_cpu(next(run)[0]), on_cpu(found)
        said, counted = (densities(experiment, at) for at in (found, beside_others))
        _require(said == counted, "densities on the device are not those on the CPU")
        for name, kept in ticket.mask.items():
            alive = int(beside_others.weights[name][~kept].count_nonzero())
            _require(not alive, f"{alive:,} pruned weights of {name} are not zero")
        here = _distance(beside_others, alone) / _distance(ticket.start, alone)
        where = f"the ticket of threshold {threshold} ends a step {here:.1%} of it"
        _require(here <= TOLERANCE, f"{where} off where it ends alone")
        apart = max(apart, here)
    ends = f"end a step at most {apart:.1%} of it off where they end alone"
    return f"{len(COHORT)} tickets side by side {ends}"


CHECKS: dict[str, Callable[[Trained], str]] = {
    "density after training": density_is_what_was_asked,
    "pruned weights": pruned_weights_stay_zero,
    "checkpoints": checkpoints_are_not_changed,
    "rewinding": tickets_go_on_from_their_epoch,
    "mask": the_mask_is_of_the_final_weights,
    "random mask": random_masks_are_over_unpruned_weights,
    "reinit": reinit_is_new_and_trained_for_all_epochs,
    "cohort": a_cohort_trains_each_ticket_as_alone,
}
"""Name → a function that says what it found, and raises if that is not what was promised."""


def findings(experiment: Experiment) -> Iterator[Finding]:
    """Train a dense run and yield what each of `CHECKS` finds.

    Whatever a check raises is its finding, because the engine has its own assertions.
    """
    try:
        trained = train_dense(experiment)
    except Exception as error:
        yield Finding("dense run", False, f"{error}")
        return
    for name, check in CHECKS.items():
        try:
            yield Finding(name, True, check(trained))
        except Exception as error:
            yield Finding(name, False, f"{error}" or type(error).__name__)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _require_epochs(epochs: Epochs, first: int, last: int) -> None:
    trained = [metrics.epoch for _, metrics in epochs]
    wanted = list(range(first, last + 1))
    _require(trained == wanted, f"epochs {trained} were trained, not {wanted}")


def _differing(one: Mask, other: Mask) -> float:
    """Return the share of the weights in which two masks differ."""
    differing = sum(int((kept != other[name]).sum()) for name, kept in one.items())
    return differing / sum(kept.numel() for kept in one.values())


def _distance(one: Checkpoint, other: Checkpoint) -> float:
    """Return the Euclidean distance between the trained weights of two states."""
    squares = [
        float((one.weights[name] - other.weights[name]).double().square().sum())
        for name in other.buffers
    ]
    return float(sum(squares) ** 0.5)
