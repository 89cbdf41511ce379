"""What the self-check promises: sound engines pass it, and each check catches its error."""

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from lthdask.checks import machine, small_study
from lthdask.lottery import drawing, runs
from lthdask.lottery.ticket import Ticket, masked
from lthdask.pruning.masks import draw_mask
from lthdask.training import cohort, model
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.recipe import Recipe
from tests.conftest import small_experiment

SCRIPT = Path(__file__).parent.parent / "scripts" / "selfcheck.py"
EXPERIMENT = small_experiment("mobilenet_v2")


@pytest.fixture(scope="module")
def sound():
    return small_study.train_dense(EXPERIMENT)


@pytest.fixture
def trained(sound):
    """A copy, which a broken engine may spoil."""
    dense = {epoch: masked(checkpoint, {}) for epoch, checkpoint in sound.dense.items()}
    return dataclasses.replace(sound, dense=dense)


@pytest.mark.parametrize("name", list(machine.CHECKS))
def test_the_engine_passes(sound, name):
    assert machine.CHECKS[name](sound)


def fails(trained, name, reason):
    with pytest.raises((AssertionError, RuntimeError), match=reason):
        machine.CHECKS[name](trained)


def test_weights_that_were_never_held_at_zero_are_counted(trained, monkeypatch):
    """A public "80 % sparse" network was 98 % dense."""
    train = runs.train
    broken = lambda *given, mask, **others: train(*given, mask=None, **others)  # noqa: E731
    monkeypatch.setattr(runs, "train", broken)
    fails(trained, "density after training", "were asked for")
    fails(trained, "pruned weights", "pruned weights of .* after epoch 2 are not zero")


def test_a_mask_of_another_share_is_counted(trained, monkeypatch):
    def broken(weights, threshold, *given, **others):
        return draw_mask(weights, threshold - 0.001, *given, **others)

    monkeypatch.setattr(drawing, "draw_mask", broken)
    fails(trained, "density after training", "were asked for")


def test_momentum_that_the_mask_was_not_laid_over_is_found(trained, monkeypatch):
    lay_over = model.lay_over
    broken = lambda kept, weights, _: lay_over(kept, weights, torch.optim.SGD(weights.values()))  # noqa: E731
    monkeypatch.setattr(model, "lay_over", broken)
    fails(trained, "pruned weights", "are not zero")


def test_a_ticket_that_is_cut_out_of_its_checkpoint_is_found(trained, monkeypatch):
    draw = drawing.draw

    def broken(experiment, cell, dense, before=None):
        drawn = draw(experiment, cell, dense, before)
        for name, kept in drawn.mask.items():
            drawn.origin.weights[name].mul_(kept)
        return drawn

    monkeypatch.setattr(drawing, "draw", broken)
    fails(trained, "checkpoints", "checkpoint 1 has changed")


def test_checkpoints_that_alias_the_network_are_found(monkeypatch):
    monkeypatch.setattr(Checkpoint, "copy", lambda checkpoint: checkpoint)
    fails(small_study.train_dense(EXPERIMENT), "checkpoints", "checkpoint 1 has changed")


def test_a_schedule_that_begins_afresh_is_found(trained, monkeypatch):
    rate = Recipe.rate
    afresh = lambda self, epoch, step, steps: rate(self, epoch - 1, step, steps)  # noqa: E731
    monkeypatch.setattr(Recipe, "rate", afresh)
    fails(trained, "rewinding", "the first step of epoch 2 ends")


def test_an_optimizer_that_forgets_is_found(trained, monkeypatch):
    optimizer = model.optimizer_of
    forgetful = lambda settings, weights, _, *rest: optimizer(settings, weights, {}, *rest)  # noqa: E731
    monkeypatch.setattr(model, "optimizer_of", forgetful)
    fails(trained, "rewinding", "the first step of epoch 2 ends")


def test_the_batches_of_another_epoch_are_found(trained, monkeypatch):
    data = type(EXPERIMENT.data)
    epoch = data.epoch

    def broken(self, batch_size, seed, replicate, number, *others):
        return epoch(self, batch_size, seed, replicate, 1, *others)

    monkeypatch.setattr(data, "epoch", broken)
    fails(trained, "rewinding", "the first step of epoch 2 ends")


@pytest.mark.parametrize("drawn_from", ["k", "always 1"])
def test_a_mask_of_early_weights_is_found(trained, monkeypatch, drawn_from):
    of = drawing.MASKS["ticket"]

    def broken(experiment, cell, dense, before):
        epoch = cell.rewind_epoch if drawn_from == "k" else 1
        return of(experiment, cell, dict.fromkeys(dense, dense[epoch]), before)

    monkeypatch.setitem(drawing.MASKS, "ticket", broken)
    fails(trained, "mask", "is not that of k=0" if drawn_from == "k" else "larger, after training")


def broken_arm(monkeypatch, arm, change):
    draw = drawing.draw

    def broken(experiment, cell, dense, before=None):
        drawn = draw(experiment, cell, dense, before)
        if cell.arm != arm:
            return drawn
        ticket = draw(experiment, dataclasses.replace(cell, arm="ticket"), dense)
        return change(drawn, ticket, dense)

    monkeypatch.setattr(drawing, "draw", broken)


def test_a_random_mask_over_what_the_ticket_s_has_left_is_found(trained, monkeypatch):
    def change(drawn, ticket, dense):
        return Ticket(ticket.start, drawn.mask, {})

    broken_arm(monkeypatch, "random_mask", change)
    fails(trained, "random mask", "of its weights are not those of checkpoint 1")


def test_a_random_mask_of_other_counts_is_found(trained, monkeypatch):
    def change(drawn, ticket, dense):
        torch.manual_seed(0)
        mask = {name: torch.rand(kept.shape) < 0.2 for name, kept in drawn.mask.items()}
        return Ticket(dense[1], mask, {})

    broken_arm(monkeypatch, "random_mask", change)
    fails(trained, "random mask", "it keeps .* the ticket")


def test_a_reinit_of_the_epochs_that_a_ticket_trains_is_found(trained, monkeypatch):
    def change(drawn, ticket, dense):
        return dataclasses.replace(drawn, origin=dataclasses.replace(drawn.origin, epoch=1))

    broken_arm(monkeypatch, "reinit", change)
    fails(trained, "reinit", r"epochs \[2, 3, 4\] were trained, not \[1, 2, 3, 4\]")


def test_a_reinit_of_the_old_initial_weights_is_found(trained, monkeypatch):
    def change(drawn, ticket, dense):
        return dataclasses.replace(drawn, origin=dense[0])

    broken_arm(monkeypatch, "reinit", change)
    fails(trained, "reinit", "are the dense run's initial ones")


def test_a_cohort_in_which_the_masks_are_exchanged_is_found(trained, monkeypatch):
    kept = cohort._kept
    broken = lambda masks: kept(masks[::-1])  # noqa: E731
    monkeypatch.setattr(cohort, "_kept", broken)
    fails(trained, "cohort", "off where it ends alone")


def test_a_cohort_whose_masks_are_not_laid_over_its_weights_is_found(trained, monkeypatch):
    monkeypatch.setattr(model, "lay_over", lambda *given: None)
    fails(trained, "cohort", "are not zero")


def test_a_cohort_whose_loss_is_a_mean_over_its_tickets_is_found(trained, monkeypatch):
    losses = cohort.Cohort.losses
    broken = lambda models, *batch: losses(models, *batch) / 3  # noqa: E731
    monkeypatch.setattr(cohort.Cohort, "losses", broken)
    fails(trained, "cohort", "off where it ends alone")


def test_a_step_that_cannot_be_recorded_is_found(trained, monkeypatch):
    """Training goes on without, and warns: on a GPU, at a fraction of the speed."""
    advancing = cohort.Cohort.advancing

    def broken(models):
        warnings.warn("training goes on without CUDA graphs", stacklevel=1)
        return advancing(models)

    monkeypatch.setattr(cohort.Cohort, "advancing", broken)
    with pytest.raises(UserWarning, match="without CUDA graphs"):
        machine.CHECKS["cohort"](trained)


def test_what_an_engine_raises_is_a_finding(monkeypatch):
    monkeypatch.setattr(drawing, "draw", lambda *given: 1 / 0)
    found = list(machine.findings(EXPERIMENT))
    assert [finding.check for finding in found if finding.passed] == []
    assert {finding.text for finding in found} == {"division by zero"}


@pytest.mark.parametrize(
    ("spoil", "code", "line"),
    [
        pytest.param("", 0, "all hold, in", marks=pytest.mark.slow),
        pytest.param(
            "drawing.random_mask = lambda mask, *_: mask",
            1,
            "FAILED  random mask: it is the",
            marks=pytest.mark.slow,
        ),
        ("sys.argv.append('--device=tpu')", 2, "'tpu' is not one of"),
    ],
)
def test_the_command_ends_with_0_or_1_or_2(spoil, code, line):
    """As a user runs it, on fewer pixels; with neither Dask nor Zarr to import."""
    program = f"""
import runpy, sys
sys.argv = ['selfcheck.py', '--device=cpu']
sys.modules.update(dict.fromkeys(['dask', 'distributed', 'zarr', 'xarray', 'safetensors']))
from lthdask.lottery import drawing
from lthdask.lottery import runs
from lthdask.checks import machine, small_study
small_study.SMALL |= {{'data.image_size': '8', 'recipe.batch_size': '256'}}
{spoil}
runpy.run_path({str(SCRIPT)!r}, run_name='__main__')
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert line in done.stdout + done.stderr


def test_help_answers_without_importing_torch():
    program = (
        "import runpy, sys\n"
        "sys.argv = ['selfcheck.py', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'dask', 'zarr', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "--device" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
