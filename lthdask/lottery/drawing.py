"""Drawing: from a dense run to what a cell trains, a mask and where to start under it.

On each worker, a dense run's weights are scored once for all thresholds, and a mask is drawn
once for all rewind epochs and arms.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lthdask.arms import ARMS
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery import transferred
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.own_arm import begun
from lthdask.lottery.ticket import Ticket
from lthdask.own import is_own
from lthdask.pruning.allocation import pools
from lthdask.pruning.masks import Mask, draw_mask, random_mask, random_numbers
from lthdask.pruning.rule import Pruning, spared_weights
from lthdask.pruning.scores import scored
from lthdask.pruning.sensitivity import hessian_gradients, loss_gradients, synflow_mask
from lthdask.rewinding import Place, place_of, step_of
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.products import products

Dense = Mapping[Place, Checkpoint]
"""Checkpoints of a replicate's dense run: epoch, or steps inside one → state."""
Drawing = tuple[dict[str, Tensor], dict[str, float]]
"""A mask, and its cutoffs."""


@dataclass(frozen=True)
class _Drawn:
    """What was drawn from a dense run's weights, kept by a worker for as long as those are."""

    scores: dict[Hashable, dict[str, Tensor]] = field(default_factory=dict)
    masks: dict[Hashable, Drawing] = field(default_factory=dict)


_drawn: WeakKeyDictionary[Checkpoint, _Drawn] = WeakKeyDictionary()
KEPT_MASKS = 64
"""Masks kept for each dense run: 140 MB with MobileNetV2, and 9 MB of scores (LAMP: 18 MB)."""


def draw(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None = None) -> Ticket:
    """Draw what a cell trains: a mask, and the state that its arm starts from under it.

    Parameters
    ----------
    experiment : Experiment
    cell : Cell
    dense : mapping of Place to Checkpoint
        Those of `lthdask.needs.checkpoints_for`.
    before : Ticket, optional
        Final weights and mask of the cell that this one waits for: the round before in
        iterative pruning, the sibling of a child.

    Notes
    -----
    The mask is that of the ticket for every arm. A random mask keeps as many weights of
    each layer and is laid over checkpoint k as it was, not over what the ticket's mask has
    left of it. The controls ``lr_rewind`` and ``fine_tune`` keep the weights, and the
    optimizer's state, of the dense run's end (Renda, Frankle & Carbin 2020, section 2.3);
    iterated, those of their own round before, which also gives them their mask.
    """
    arm = ARMS[cell.arm]
    if before:  # from a file, which has the layers in any order
        mask = {name: before.mask[name] for name in experiment.prunable()}
        before = replace(before, mask=mask)
    mask, cutoffs = MASKS[arm.mask](experiment, cell, dense, before)
    begin = STARTS["trained" if experiment.transferred and arm.start != "new" else arm.start]
    start = begin(experiment, cell, dense, before)
    if experiment.fresh_buffers and arm.mask != "none":
        start = replace(start, buffers={})  # as open_lth does, without momentum
    if is_own(cell.arm):
        start, mask = begun(experiment, cell, start, mask, dense[0].weights)
    return Ticket(start, mask, cutoffs)


def _rewound(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None) -> Checkpoint:
    return dense[place_of(cell.rewind_epoch, experiment.steps)].beginning()


def _restarted(
    experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None
) -> Checkpoint:
    return Checkpoint(0, _rewound(experiment, cell, dense, before).weights)


def _final(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None) -> Checkpoint:
    epoch, step = divmod(step_of(cell.rewind_epoch, experiment.steps), experiment.steps)
    return replace(dense[experiment.recipe.epochs], epoch=epoch, step=step).beginning()


def _before(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None) -> Checkpoint:
    ended: Dense = {experiment.recipe.epochs: before.origin} if before else dense
    return _final(experiment, cell, ended, before)


def _new(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None) -> Checkpoint:
    weights = experiment.build(cell.replicate, again=True).state_dict()
    return Checkpoint(0, {name: tensor.cpu() for name, tensor in weights.items()})


def _signs(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None) -> Checkpoint:
    weights = dict(dense[0].weights)
    for name in experiment.prunable():
        deviation = float(weights[name].double().std(correction=0))
        weights[name] = deviation * weights[name].sign()
    return Checkpoint(0, weights)


def _of_source(
    experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None
) -> Checkpoint:
    return transferred.start(experiment, cell)


STARTS: dict[str, Callable[[Experiment, Cell, Dense, Ticket | None], Checkpoint]] = {
    "rewound": _rewound,
    "restarted": _restarted,
    "final": _final,
    "before": _before,
    "new": _new,
    "signs": _signs,
    "trained": _of_source,
}
"""`lthdask.grid.Arm.start` → a function that returns it."""


def mask_at(
    experiment: Experiment, replicate: int, threshold: float, dense: Dense, epoch: int
) -> Mask:
    """Return the mask that the weights of an epoch of the dense run would give, 0 included."""
    cell = Cell("ticket", replicate, threshold, 0)
    return _tickets(replace(experiment, mask_epoch=epoch), cell, dense, None)[0]


def ticket(
    experiment: Experiment, trained: Checkpoint, early: Checkpoint, threshold: float
) -> Ticket:
    """Draw the ticket of checkpoint `early` at `threshold`, from the `trained` dense weights."""
    k = early.place(experiment.steps)
    dense = {k: early} | {experiment.mask_place: trained}
    return draw(experiment, Cell("ticket", 0, threshold, k), dense)


def _spared(experiment: Experiment) -> frozenset[str]:
    return spared_weights(experiment.prunable(), experiment.pruning.spare)


def _tickets(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None) -> Drawing:
    """Draw the mask of a ticket and of its controls, with its cutoffs.

    Scoring takes as long as an epoch of a small study, so it is done once per worker. All
    rewind epochs and arms of a threshold share the mask. All thresholds share the scores,
    except with SynFlow and iterative rounds, which score what is left again.
    """
    if experiment.transferred:
        return transferred.mask(experiment, cell), {}
    if experiment.given:
        mask = experiment.given[cell.threshold]  # in any order, by which random masks are drawn
        return {name: mask[name] for name in experiment.prunable()}, {}
    trained = before.origin if before else dense[experiment.mask_place]
    pruning, spared, threshold = experiment.pruning, _spared(experiment), cell.threshold
    final = {name: trained.weights[name] for name in experiment.prunable()}
    torch.set_num_threads(experiment.engine.threads)  # the last bits of a score decide ranks
    with products(experiment.engine):
        if before:
            _require_round_before(pruning, threshold, before.mask, spared)
            scores = _scores(experiment, cell, dense, final, before.mask)
            return draw_mask(final, threshold, pruning, spared, before=before.mask, scores=scores)
        drawn = _drawn.setdefault(trained, _Drawn())
        of = (pruning, experiment.network, experiment.seed, cell.replicate)
        found = drawn.masks.get((*of, threshold))
        if found is None:
            if pruning.score == "synflow":
                network = _initial(experiment, cell, dense).cpu()
                found = synflow_mask(network, threshold, pruning, spared, experiment.data.shape)
            else:
                scores = drawn.scores.get(of) or _scores(experiment, cell, dense, final, None)
                drawn.scores[of] = scores
                found = draw_mask(final, threshold, pruning, spared, scores=scores)
            drawn.masks[*of, threshold] = found
            if len(drawn.masks) > KEPT_MASKS:
                drawn.masks.pop(next(iter(drawn.masks)), None)
        return found


def _require_round_before(
    pruning: Pruning, threshold: float, before: Mask, spared: frozenset[str]
) -> None:
    """Refuse the mask of any other round than the one before: it keeps more weights, or fewer."""
    if not (earlier := [share for share in pruning.thresholds() if share < threshold]):
        return
    pruned = {name: kept for name, kept in before.items() if name not in spared}
    wanted = sum(left for _, left in pools(pruned, earlier[-1], pruning))
    if (found := sum(int(kept.sum()) for kept in pruned.values())) != wanted:
        raise InputError(
            f"the mask of the round before {threshold:g} keeps {found:,} weights, not {wanted:,}: "
            f"it is of another round"
        )


def _random(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None) -> Drawing:
    mask, cutoffs = _tickets(experiment, cell, dense, before)
    return random_mask(mask, _spared(experiment), experiment.seed, cell.replicate), cutoffs


def _parents(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None) -> Drawing:
    assert before
    return before.mask, {}


def _none(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None) -> Drawing:
    return {}, {}


MASKS: dict[str, Callable[[Experiment, Cell, Dense, Ticket | None], Drawing]] = {
    "ticket": _tickets,
    "random": _random,
    "parent": _parents,
    "none": _none,
}
"""`lthdask.grid.Arm.mask` → a function that returns it, with its cutoffs."""


def _scores(
    experiment: Experiment,
    cell: Cell,
    dense: Dense,
    final: dict[str, Tensor],
    before: Mask | None,
) -> dict[str, Tensor]:
    """Score the weights that are not pruned yet, in each layer that is not spared."""
    pruning, spared = experiment.pruning, _spared(experiment)
    living = {
        name: before[name] if before else torch.ones_like(weight, dtype=torch.bool)
        for name, weight in final.items()
        if name not in spared
    }
    initial, gradients, random = None, None, None
    if pruning.needs_initial:
        initial = {name: dense[0].weights[name] for name in final}
    if pruning.needs_gradients:
        network = _initial(experiment, cell, dense)
        batch = experiment.recipe.batch_size
        of = hessian_gradients if pruning.score == "grasp" else loss_gradients
        found = of(network, experiment.data, batch, experiment.seed, cell.replicate)
        gradients = {name: gradient.cpu() for name, gradient in found.items()}
    if pruning.score == "random":
        random = random_numbers(final, experiment.seed, cell.replicate)
    return scored(pruning.score, living, final, initial, gradients, random)


def _initial(experiment: Experiment, cell: Cell, dense: Dense) -> nn.Module:
    """Return the network as the dense run began."""
    network = experiment.build(cell.replicate)
    network.load_state_dict(dense[0].weights)
    return network
