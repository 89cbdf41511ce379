"""What a ticket promises: the early state under a mask of the final weights."""

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lthdask.lottery import drawing, runs
from lthdask.lottery.ticket import masked
from lthdask.pruning.masks import draw_mask
from lthdask.pruning.rule import Pruning, prunable_weights
from lthdask.training.checkpoint import Checkpoint
from tests.conftest import small_experiment

FINAL = Checkpoint(4, {"w": torch.tensor([1.0, 2.0, 3.0, 4.0]), "norm.mean": torch.ones(2)})
EARLY = Checkpoint(
    1,
    {"w": torch.tensor([9.0, 8.0, 7.0, 6.0]), "norm.mean": torch.full((2,), 5.0)},
    {"w": {"momentum_buffer": torch.tensor([0.1, 0.2, 0.3, 0.4]), "step": torch.tensor(3.0)}},
)


MASK, _ = draw_mask({"w": FINAL.weights["w"]}, 0.5, Pruning("global"))


def test_the_mask_comes_from_the_final_weights_and_the_values_from_the_early_ones():
    assert MASK["w"].tolist() == [False, False, True, True]
    start = masked(EARLY, MASK)
    assert start.epoch == 1
    assert start.weights["w"].tolist() == [0, 0, 7, 6]
    assert start.weights["norm.mean"].tolist() == [5, 5]


def test_pruned_momentum_is_zero_and_the_rest_of_the_optimizer_is_kept():
    buffers = masked(EARLY, MASK).buffers["w"]
    assert buffers["momentum_buffer"].tolist() == pytest.approx([0, 0, 0.3, 0.4])
    assert buffers["step"] == 3


def test_every_rewind_epoch_gets_the_same_mask(dense_run):
    experiment, checkpoints, _ = dense_run
    tickets = [drawing.ticket(experiment, checkpoints[-1], c, 0.8) for c in checkpoints[:-1]]
    for ticket in tickets[1:]:
        assert all(torch.equal(ticket.mask[n], m) for n, m in tickets[0].mask.items())
    # ... and it is not the mask that the rewound weights would give.
    early = prunable_weights(experiment.build())
    wrong, _ = draw_mask({n: checkpoints[1].weights[n] for n in early}, 0.8, experiment.pruning)
    assert any(not torch.equal(wrong[n], m) for n, m in tickets[0].mask.items())


def test_a_checkpoint_is_the_same_after_cells_have_used_it(dense_run):
    experiment, checkpoints, _ = dense_run
    trained, early = checkpoints[-1], checkpoints[1]
    before = trained.digest(), early.digest()
    for threshold in (0.5, 0.9):
        ticket = drawing.ticket(experiment, trained, early, threshold)
        for _ in runs.train_ticket(experiment, 0, ticket):
            pass
    assert (trained.digest(), early.digest()) == before


def test_a_checkpoint_is_not_changed_by_the_run_that_goes_on():
    digests, run = [], runs.train_dense(small_experiment(), 0)
    kept = []
    for checkpoint, _ in run:
        kept.append(checkpoint)
        digests.append(checkpoint.digest())
    assert [checkpoint.digest() for checkpoint in kept] == digests
    assert len(set(digests)) == len(digests)


def test_checkpoints_are_complete(dense_run):
    _, checkpoints, _ = dense_run
    assert [checkpoint.epoch for checkpoint in checkpoints] == [0, 1, 2, 3, 4]
    counters = [c.weights["features.0.1.num_batches_tracked"].item() for c in checkpoints]
    assert counters == [0, 4, 8, 12, 16]  # k = 0 is before the first step
    assert checkpoints[0].buffers == {}
    assert not torch.equal(
        checkpoints[1].weights["features.0.1.running_mean"],
        checkpoints[2].weights["features.0.1.running_mean"],
    )
    momentum = checkpoints[2].buffers["classifier.1.weight"]["momentum_buffer"]
    assert momentum.abs().sum() > 0


@pytest.mark.parametrize("change", ["weight", "buffer", "epoch"])
def test_the_digest_sees_every_part_of_a_checkpoint(change):
    other = Checkpoint(
        1 + (change == "epoch"),
        EARLY.weights | ({"w": EARLY.weights["w"] + 1} if change == "weight" else {}),
        {"w": EARLY.buffers["w"] | ({"step": torch.tensor(4.0)} if change == "buffer" else {})},
    )
    assert other.digest() != EARLY.digest()


def test_what_a_study_spares_is_kept_whole():
    pruning = Pruning("global", spare=("stem", "5.weight"))
    experiment = small_experiment(pruning=pruning)
    checkpoint = next(runs.train_dense(experiment, 0))[0]
    mask = drawing.ticket(experiment, checkpoint, checkpoint, 0.9).mask
    assert {name: bool(kept.all()) for name, kept in mask.items()} == {
        "1.weight": True,
        "3.weight": False,
        "5.weight": True,
    }


def test_a_study_may_start_the_optimizer_of_its_tickets_afresh(dense_run):
    experiment, checkpoints, _ = dense_run
    fresh = dataclasses.replace(experiment, fresh_buffers=True)
    tickets = [drawing.ticket(e, checkpoints[-1], checkpoints[2], 0.5) for e in (experiment, fresh)]
    assert [bool(ticket.start.buffers) for ticket in tickets] == [True, False]


def test_networks_drawn_in_two_threads_at_once_are_those_drawn_in_turn():
    experiment = small_experiment("mobilenet_v2")

    def drawn(replicate):
        return next(runs.train_dense(experiment, replicate))[0].digest()

    alone = [drawn(replicate) for replicate in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(drawn, range(6))) == alone


@pytest.mark.parametrize("writeable", [True, False])
def test_a_checkpoint_is_the_same_after_it_was_sent(writeable):
    """Its tensors travel beside the message, from where they lie."""
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(EARLY, protocol=5, buffer_callback=buffers.append)
    assert buffers
    kind = bytearray if writeable else bytes
    arrived = pickle.loads(message, buffers=[kind(buffer.raw()) for buffer in buffers])
    assert arrived.digest() == EARLY.digest()
    arrived.weights["w"].zero_()
    assert arrived.digest() != EARLY.digest()
