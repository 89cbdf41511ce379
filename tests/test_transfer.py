"""What a transfer promises: tickets of another study, exactly, on data of one's own."""

import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import lthdask
from lthdask import growing
from lthdask.checks.folder import check
from lthdask.commands.main import main
from lthdask.driver.opening import open_study
from lthdask.errors import InputError
from lthdask.export.choice import Asked
from lthdask.export.folder import export
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.ticket import Ticket
from lthdask.options import Options
from lthdask.report.methods.text import methods
from lthdask.report.paired import values_of
from lthdask.report.summary import outcome, sentences
from lthdask.source import in_words
from lthdask.storage import checkpoints
from lthdask.storage import source as source_of
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Status
from lthdask.storage.ticket_file import read, write
from lthdask.storage.tickets import Tickets
from lthdask.study import Study
from tests.conftest import everything
from tests.test_flow import TINY
from tests.trained import trained

KEEP = Options(keep="all", keep_rewound=True)
SOURCE = TINY.changed(
    {
        "name": "source",
        "recipe.epochs": "2",
        "grid.rewind_epochs": "1",
        "grid.replicates": "2",
        "recipe.batch_size": "32",
    }
)
TARGET = TINY.changed(
    {
        "name": "target",
        "recipe.epochs": "2",
        "grid.rewind_epochs": "0",
        "grid.replicates": "1",
        "data.subset": "1000",
        "recipe.measure_every": "1",
        "seed": "7",
    }
)
HEAD = ("5.weight", "5.bias")
OWN_DATA = """
import torch

def halves(folder):
    labels = torch.arange(300) % 3
    images = torch.randint(0, 200, (300, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    images[labels == 1, :, :4] //= 4
    images[labels == 2, :, 4:] //= 4
    return (images.byte()[:200], labels[:200]), (images.byte()[200:], labels[200:])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run of two replicates that kept its tickets."""
    folder = tmp_path_factory.mktemp("transfer") / "source"
    trained(folder, SOURCE, KEEP)
    return folder


@pytest.fixture(scope="module")
def study(source):
    return lthdask.transfer(TARGET, source)


@pytest.fixture(scope="module")
def work(study, tmp_path_factory):
    """The work of the transfer, once it is trained."""
    return trained(tmp_path_factory.mktemp("transfer") / "target", study, KEEP)


@pytest.fixture
def elsewhere(monkeypatch):
    """As in another process, which was given no source."""
    monkeypatch.setattr(source_of, "_known", {})
    source_of._loaded.cache_clear()


def copied(work, path):
    shutil.copytree(work.folder.path, path)
    return path


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def test_network_and_grid_are_the_source_s_and_the_rest_is_the_study_s_own(study):
    assert study.name == "target-from-source"
    assert study.network == SOURCE.network
    assert (study.data, study.recipe, study.seed) == (TARGET.data, TARGET.recipe, TARGET.seed)
    grid = study.grid
    assert (grid.thresholds, grid.rewind_epochs, grid.replicates) == ((0.5, 0.95), (0,), 2)
    arms = ("ticket", "trained_ticket", "reinit", "random_mask", "dense_pretrained")
    assert grid.arms == arms
    assert study.source.rewind_epoch == 1
    assert sorted(study.source.files) == [
        *("early-r0", "early-r1", "final-r0", "final-r1"),
        *("ticket-r0-t0.5", "ticket-r0-t0.95", "ticket-r1-t0.5", "ticket-r1-t0.95"),
    ]
    assert Study.parse(study.to_yaml()) == study
    some = study.changed({"grid.arms": "ticket", "grid.thresholds": "0.5", "grid.replicates": "1"})
    assert sorted(some.source.files) == ["early-r0", "ticket-r0-t0.5"]


def test_each_arm_starts_from_the_weights_and_the_mask_that_its_row_says(source, work):
    experiment, folder, cell = work.experiment(), Folder(source), Cell("ticket", 1, 0.95, 1)
    kept = Tickets(folder).load(cell)
    digests = folder.manifest().checkpoints[1]
    early, final = (
        checkpoints.load(checkpoints.path_of(source, 1, at), digests[at]).weights for at in (1, 2)
    )

    def drawn(arm):
        return drawing.draw(experiment, Cell(arm, 1, 0.95, 0), {})

    for arm, weights in (("ticket", early), ("trained_ticket", kept.origin.weights)):
        assert equal(drawn(arm).origin.weights, weights)
        assert equal(drawn(arm).mask, kept.mask)
        assert drawn(arm).origin.buffers == {}
    new = experiment.build(1, again=True).state_dict()
    assert equal(drawn("reinit").origin.weights, new)
    assert equal(drawn("reinit").mask, kept.mask)
    random = drawn("random_mask")
    assert equal(random.origin.weights, early)
    assert not equal(random.mask, kept.mask)
    assert [int(of.sum()) for of in random.mask.values()] == [
        int(kept.mask[name].sum()) for name in random.mask
    ]
    dense = drawn("dense_pretrained")
    assert equal(dense.origin.weights, final)
    assert dense.mask == {}


def test_the_cube_has_every_arm_as_a_serial_loop_trains_it(work):
    results = everything(work.folder.path)
    assert (results.status != Status.PENDING).all()
    cell = Cell("trained_ticket", 1, 0.5, 0)
    experiment = work.experiment()
    drawn = drawing.draw(experiment, cell, {})
    *_, (_, outcome) = runs.train_ticket(experiment, 1, Ticket(drawn.origin, drawn.mask, {}))
    at = results.sel(arm=cell.arm, replicate=1, threshold=0.5, rewind_epoch=0)
    assert at.test_accuracy == pytest.approx(100 * outcome.test_accuracy)
    assert at.epochs_trained == 2
    np.testing.assert_allclose(results.density, [0.5, 0.05], atol=1e-3)
    judged = lthdask.verdicts(results)
    assert judged.control.values.tolist() == [
        *("random_mask", "reinit", "trained_ticket", "dense_pretrained")
    ]
    minus = judged.minus_control.sel(control="dense_pretrained", rewind_epoch=0)
    dense = results.test_accuracy.sel(arm="dense_pretrained", threshold=0.5, rewind_epoch=0)
    ticket = results.test_accuracy.sel(arm="ticket", rewind_epoch=0)
    np.testing.assert_allclose(minus, (ticket - dense).mean("replicate"))
    assert lthdask.early_stop(results).reached.notnull().all()
    each = "each replicate has the tickets of its own replicate of the study source"
    assert judged.attrs["source"].startswith(each)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("ticket", "a rewound ticket: the weights that tickets were trained from there under the"),
        ("trained_ticket", "a trained ticket: the trained weights of the ticket under the ticket"),
        ("reinit", "a new initialisation under the ticket's mask, trained for all T epochs"),
        ("random_mask", "the weights that tickets were trained from there under a random mask"),
        ("dense_pretrained", "the pretrained dense network: the final weights of the dense netwo"),
    ],
)
def test_the_card_of_a_transferred_ticket_says_what_it_is_and_where_it_comes_from(
    work, tmp_path, arm, said
):
    export(work.folder.path, tmp_path / "out", Asked(0.5, arm=arm))
    text = (tmp_path / "out" / "README.md").read_text()
    (told,) = (line for line in text.splitlines() if line.startswith(f"`{arm}-r"))
    assert f"of the study `target-from-source`: {said}" in told
    assert (
        "Each replicate has the tickets of its own replicate of the study source (digits, k=1)"
        in told
    )
    assert ("exactly zero" in told) == (arm != "dense_pretrained")


def test_another_process_goes_on_without_the_source_to_the_same_bits(
    study, work, tmp_path, elsewhere
):
    folder = copied(work, tmp_path / "again")
    cube, lost = Cube(folder / "results.zarr"), [c for c in study.grid.cells() if c.replicate]
    for cell in lost:
        cube.erase(cell)
    trained(folder, Study.parse((folder / "study.yaml").read_text()))
    assert len(Folder(folder).runs.attempts(lost[0])) == 2
    one, other = (everything(path) for path in (folder, work.folder.path))
    for name in ("test_accuracy", "validation_loss_curve", "layer_density"):
        np.testing.assert_array_equal(one[name], other[name])
    assert check(folder) == []


def test_a_transfer_grows_along_every_axis_to_the_same_bits(source, work, tmp_path):
    part = {"grid.thresholds": "0.95", "grid.replicates": "1", "grid.arms": "ticket,reinit"}
    folder = tmp_path / "grown"
    trained(folder, lthdask.transfer(TARGET, source).changed(part))
    trained(folder, lthdask.transfer(TARGET, source))
    one, other = (everything(path) for path in (folder, work.folder.path))
    one, other = (values_of(of, "test_accuracy")[0] for of in (one, other))
    np.testing.assert_array_equal(one, other)  # the dense arm is stored at another threshold
    opened = open_study(lthdask.transfer(TARGET, source).changed(part), folder)
    assert opened.more == {
        "arm": ["trained_ticket", "random_mask", "dense_pretrained"],
        "replicate": [1],
        "threshold": [0.5],
    }


def test_another_ticket_at_the_same_path_is_another_study(study, source, work, tmp_path):
    moved = tmp_path / "source"
    shutil.copytree(source, moved)
    assert lthdask.transfer(TARGET, moved) == study  # wherever it lies
    shutil.rmtree(moved)
    small = {"seed": "9", "grid.replicates": "1", "grid.thresholds": "0.5"}
    trained(moved, SOURCE.changed(small), KEEP)
    other = lthdask.transfer(TARGET, moved)
    differ = [line.partition(": ")[0] for line in growing.differences(study, other)]
    files = ("early-r0", "final-r0", "ticket-r0-t0.5")
    assert sorted(differ) == [f"source.files.{name}" for name in files]
    with pytest.raises(InputError, match="another study; .* source.files.early-r0: "):
        open_study(other, work.folder.path)


def test_from_one_file_all_replicates_have_its_ticket_and_nothing_is_said_of_others(
    source, tmp_path
):
    for end in ("", ".rewound"):
        name = f"ticket-r1-t0.95-k1{end}.safetensors"
        shutil.copy(source / "tickets" / name, tmp_path)
    file = tmp_path / "ticket-r1-t0.95-k1.safetensors"
    study = lthdask.transfer(TARGET.changed({"grid.replicates": "2"}), file)
    assert study.grid.thresholds == (0.95,)
    assert study.grid.arms == ("ticket", "trained_ticket", "reinit")
    assert sorted(study.source.files) == ["rewound-t0.95", "ticket-t0.95"]
    work = trained(tmp_path / "target", study)
    kept = Tickets(Folder(source)).load(Cell("ticket", 1, 0.95, 1))
    for replicate in (0, 1):
        drawn = drawing.draw(work.experiment(), Cell("ticket", replicate, 0.95, 0), {})
        assert equal(drawn.mask, kept.mask)
        whole = lthdask.load_ticket(file)
        assert equal(drawn.origin.weights, whole.rewound)
    folder = str(work.folder.path)
    alone = "all replicates have one ticket of the study source"
    for command in ("status", "results"):
        said = " ".join(CliRunner().invoke(main, [command, folder]).output.split())
        assert alone in said
    assert "a margin of 1 point, on the one ticket alone" in said
    results = everything(folder)
    assert any(alone in line for line in sentences(results))  # as in the report
    judged = lthdask.verdicts(results.drop_attrs(), margin=1), lthdask.verdicts(results)
    assert ["source" in of.attrs for of in judged] == [False, True]
    for asked in (lthdask.verdicts, lthdask.frontier, lthdask.controls, lthdask.early_stop):
        assert alone in asked(results).attrs["source"]
    assert alone in outcome(results)["source"]
    assert "so nothing is shown of any other" in methods(work.folder.path)
    with pytest.raises(InputError, match="source: one ticket for all replicates in the folder, ea"):
        open_study(lthdask.transfer(TARGET, source), folder)
    for end in ("", ".rewound"):
        name = f"ticket-r0-t0.5-k1{end}.safetensors"
        shutil.copy(source / "tickets" / name, tmp_path)
    more = lthdask.transfer(TARGET, tmp_path / "ticket-r0-t0.5-k1.safetensors")
    both = growing.joined(study, more).to_dict()["source"]
    assert "one ticket at each threshold of the study source" in in_words(both)
    with pytest.raises(
        InputError, match="random_mask starts from dense weights of source, which neither the file"
    ):
        study.changed({"grid.arms": "ticket,random_mask"})
    with pytest.raises(InputError, match="there is none at the threshold 0.5; give the folder"):
        study.grown(thresholds=[0.5])


def test_where_the_classes_are_others_the_head_is_new_and_whole(source, tmp_path):
    code = tmp_path / "of_three_classes.py"
    code.write_text(OWN_DATA)
    lthdask.Study.read("digits", code=[code])  # which gives the code
    changes = {"data.name": "of_three_classes:halves", "data.augmentation": "[]"}
    changes |= {"data.subset": "null", "data.validation": "40", "grid.replicates": "1"}
    target = TARGET.changed(changes)
    study = lthdask.transfer(target, source).changed({"grid.replicates": "1"})
    work = trained(tmp_path / "target", study)
    experiment = work.experiment()
    kept = Tickets(Folder(source)).load(Cell("ticket", 0, 0.95, 1))
    head = experiment.build(0).state_dict()
    for arm in ("ticket", "trained_ticket", "random_mask"):
        drawn = drawing.draw(experiment, Cell(arm, 0, 0.95, 0), {})
        assert equal({n: drawn.origin.weights[n] for n in HEAD}, {n: head[n] for n in HEAD})
        assert drawn.mask["5.weight"].shape == (3, 100)
        assert drawn.mask["5.weight"].all()
        assert int(drawn.mask["3.weight"].sum()) == int(kept.mask["3.weight"].sum())
    assert "the output layer was drawn anew for each replicate" in methods(work.folder.path)
    assert equal(
        drawing.draw(experiment, Cell("trained_ticket", 0, 0.95, 0), {}).origin.weights
        | {n: kept.origin.weights[n] for n in HEAD},
        kept.origin.weights,
    )


def test_tickets_of_a_transfer_go_on_to_a_third_study_from_what_they_were_trained_from(
    work, tmp_path
):
    third = TARGET.changed({"name": "third", "data.subset": "970"})
    study = lthdask.transfer(third, work.folder.path)
    assert study.grid.arms == ("ticket", "trained_ticket", "reinit")
    assert (study.grid.replicates, study.source.rewind_epoch) == (2, 0)
    some = {"grid.arms": "ticket,trained_ticket", "grid.thresholds": "0.95"}
    some |= {"grid.replicates": "1"}
    there, cell = Tickets(work.folder), Cell("ticket", 0, 0.95, 0)
    work = trained(tmp_path / "third", study.changed(some))
    kept = there.load(cell)
    for arm, weights in {
        "ticket": there.read_rewound(cell, kept.mask),
        "trained_ticket": kept.origin.weights,
    }.items():
        drawn = drawing.draw(work.experiment(), Cell(arm, 0, 0.95, 0), {})
        assert equal(drawn.origin.weights, weights)
        assert equal(drawn.mask, kept.mask)
    with pytest.raises(InputError, match="which neither .*, nor a run whose tickets come from an"):
        study.changed({"grid.arms": "ticket,random_mask"})
    lost = tmp_path / "lost"
    shutil.copytree(there.folder.path, lost)
    (lost / "tickets" / f"{cell}.rewound.safetensors").unlink()
    with pytest.raises(InputError, match="what ticket-r0-t0.95-k0 was trained from was not kept"):
        lthdask.transfer(third, lost)


def test_tickets_that_were_pruned_by_cutoffs_keep_them_as_thresholds(tmp_path):
    changes = {"pruning.by": "cutoff", "grid.thresholds": "0.05", "grid.replicates": "1"}
    trained(tmp_path / "source", SOURCE.changed(changes), KEEP)
    study = lthdask.transfer(TARGET, tmp_path / "source").changed({"grid.arms": "ticket"})
    assert (study.grid.thresholds, study.pruning.by) == ((0.05,), "cutoff")
    work = trained(tmp_path / "target", study)
    there, here = (everything(tmp_path / name) for name in ("source", "target"))
    assert 0 < float(here.density.item()) < 1
    np.testing.assert_array_equal(here.counted_density, there.counted_density)
    assert "Cutoffs are those there, and k = 1 is" in methods(work.folder.path)
    kept = tmp_path / "source" / "tickets" / "ticket-r0-t0.05-k1.safetensors"
    assert lthdask.transfer(TARGET, kept).pruning.by == "cutoff"


def of_one(source, folder, **about):
    """Write the file of a ticket that says something else."""
    cell = Cell("ticket", 0, 0.95, 1)
    kept = Tickets(Folder(source)).trained(cell)
    ticket, said = read(kept)
    file = folder / "ticket.safetensors"
    write(file, ticket.origin.weights, ticket.mask, said | about)
    shutil.copy(Tickets(Folder(source)).rewound(cell), folder / "ticket.rewound.safetensors")
    return file


def test_what_gives_no_ticket_is_refused_in_one_sentence(source, work, tmp_path):
    with pytest.raises(InputError, match="there is nothing at .*gone; give the folder of a run"):
        lthdask.transfer(TARGET, tmp_path / "gone")
    with pytest.raises(InputError, match="there is no run in "):
        lthdask.transfer(TARGET, tmp_path)
    with pytest.raises(InputError, match="kept no tickets; its own command keeps them, with `keep"):
        lthdask.transfer(TARGET, trained(tmp_path / "none", TARGET).folder.path)
    with pytest.raises(InputError, match="kept tickets of the rewind epochs 1; say which one"):
        lthdask.transfer(TARGET, source, rewind_epoch=2)
    with pytest.raises(InputError, match="`rewind_epoch` takes epochs, such as 2"):
        lthdask.transfer(TARGET, source, rewind_epoch="x")
    lost = tmp_path / "lost"
    shutil.copytree(source, lost)
    (lost / "tickets" / "ticket-r1-t0.5-k1.safetensors").unlink()
    assert lthdask.transfer(TARGET, lost).grid.thresholds == (0.95,)
    (lost / "tickets" / "ticket-r0-t0.95-k1.safetensors").unlink()
    with pytest.raises(InputError, match="of no threshold did the run .* all replicates up to 1"):
        lthdask.transfer(TARGET, lost)
    file = source / "tickets" / "ticket-r1-t0.5-k1.safetensors"
    with pytest.raises(
        InputError, match="has what a ticket was trained from; .* beside it, ticket-"
    ):
        lthdask.transfer(TARGET, file.with_name(f"{file.stem}.rewound.safetensors"))
    alone = shutil.copy(file, tmp_path / "alone.safetensors")
    with pytest.raises(
        InputError, match="does not lie beside it, as alone.rewound.safetensors; th"
    ):
        lthdask.transfer(TARGET, alone)


def test_a_damaged_or_hostile_source_is_refused_and_nothing_in_it_is_run(source, tmp_path):
    with pytest.raises(InputError, match="does not say which ticket of which study it is"):
        lthdask.transfer(TARGET, of_one(source, tmp_path, cell={"threshold": "x"}))
    of_reinit = SOURCE.to_dict(), vars(Cell("reinit", 0, 0.95, 1))
    with pytest.raises(InputError, match="is of the arm reinit, which is no ticket; give the file"):
        lthdask.transfer(TARGET, of_one(source, tmp_path, study=of_reinit[0], cell=of_reinit[1]))
    for pruning, problem in (({"by": "chance"}, "pruning.by should be"), ({}, "does not say whi")):
        study = SOURCE.to_dict() | {"pruning": pruning}
        with pytest.raises(InputError, match=problem):
            lthdask.transfer(TARGET, of_one(source, tmp_path, study=study))
    with pytest.raises(InputError, match="is not a valid ticket: "):
        lthdask.transfer(TARGET, of_one(source, tmp_path, network={"name": "os:system"}))
    with pytest.raises(InputError, match="does not fit the network that it names"):
        lthdask.transfer(TARGET, of_one(source, tmp_path, input=[1, 9, 9]))
    broken = tmp_path / "broken"
    shutil.copytree(source, broken)
    file = broken / "tickets" / "ticket-r1-t0.5-k1.safetensors"
    for damaged in (file.with_name("ticket-r0-t0.5-k1.safetensors"), file):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1])
        with pytest.raises(InputError, match="is not a valid ticket.*; `lthdask check .*--repair"):
            lthdask.transfer(TARGET, broken)
        damaged.write_bytes(whole)
    shutil.copy(source / "tickets" / "ticket-r0-t0.5-k1.safetensors", file)
    with pytest.raises(InputError, match="is not the ticket that this study kept of ticket-r1"):
        lthdask.transfer(TARGET, broken)
    shutil.copy(source / "tickets" / file.name, file)
    dense = checkpoints.path_of(broken, 0, 2)
    dense.write_bytes(dense.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="the checkpoint .* is damaged.*; `lthdask check .* --rep"):
        lthdask.transfer(TARGET, broken)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"grid.replicates": "3"}, "no ticket of source was given for replicate 2 at the thres"),
        ({"grid.thresholds": "0.5,0.7"}, "0.7; ask for fewer, or give a run that kept it as `tic"),
        ({"grid.rewind_epochs": "0,1"}, "trained for all epochs, so the only one of rewind_epoc"),
        ({"grid.arms": "ticket,constant_signs"}, "constant_signs means nothing with tickets of"),
        ({"grid.arms": "ticket,ticket_child"}, "ticket_child means nothing with tickets of anot"),
        ({"pruning.score": "lamp"}, "with their masks, so nothing of pruning means anything"),
        ({"mask_epoch": "1"}, "with their masks, so nothing of pruning means anything"),
    ],
)
def test_what_contradicts_the_tickets_is_refused(study, changes, problem):
    with pytest.raises(InputError, match=problem):
        study.changed(changes)


def test_what_does_not_fit_is_refused_before_anything_is_written(
    study, source, tmp_path, elsewhere
):
    with pytest.raises(InputError, match="the arm trained_ticket starts from tickets of another"):
        TARGET.changed({"grid.arms": "ticket,trained_ticket"})
    with pytest.raises(
        InputError, match=r"lacks what it took over of the study source \(cannot re"
    ):
        open_study(study, tmp_path / "new")
    again = lthdask.transfer(TARGET, source)
    with pytest.raises(InputError, match="given masks are known before training"):
        open_study(again, tmp_path / "new", Options(masks_only=True))
    for changes in ({"data.image_size": "16"}, {"network.name": "conv2"}):
        with pytest.raises(InputError, match="tickets of source do not fit: .* inputs of 1×8×8, "):
            open_study(again.changed(changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../../x-r0", "ticket-r0-t0.5/..", "code"])
def test_a_study_names_no_file_outside_its_folder(study, name):
    values = study.to_dict()
    values["source"]["files"] |= {name: "0123456789abcdef"}
    with pytest.raises(InputError, match="files are a name, such as ticket-r0-t0.9, and a digest"):
        Study.from_dict(values)


def test_a_damaged_copy_is_found_and_given_again(study, source, work, tmp_path, monkeypatch):
    folder = copied(work, tmp_path / "damaged")
    (file, *_) = sorted((folder / "source").iterdir())
    shutil.copy(folder / "source" / "early-r1.safetensors", file)
    assert [(d.what, d.mend) for d in check(folder)] == [("source/early-r0.safetensors", None)]
    monkeypatch.setattr(source_of, "_known", {})
    source_of._loaded.cache_clear()
    with pytest.raises(
        InputError, match=r"of the study source \(it is another one\); give its run"
    ):
        open_study(study, folder)
    trained(folder, lthdask.transfer(TARGET, source))
    assert check(folder) == []


def test_on_the_command_line_it_is_an_option(source, tmp_path):
    study = tmp_path / "target.yaml"
    study.write_text(TARGET.to_yaml())
    asked = ["plan", "--study", str(study), "--ticket", str(source), "--subset", "970"]
    asked += ["--arms", "ticket,reinit", "--set", "source.rewind_epoch=1", "--out", str(tmp_path)]
    said = CliRunner().invoke(main, [*asked[:-1], str(tmp_path / "out")])
    assert said.output.startswith("target-from-source: 8 cells to train, 0 done"), said.output
    for odd in ("source.classes=3", "pruning.by=cutoff"):
        said = CliRunner().invoke(main, [*asked[:-2], "--set", odd])
        assert (said.exit_code, "is said by the tickets; leave it out" in said.stderr) == (2, True)
    said = CliRunner().invoke(main, ["plan", "--ticket", str(tmp_path / "none")])
    assert (said.exit_code, "as --ticket" in said.output) == (2, True)
