"""What a run that keeps tickets promises: those that were asked for, and results as they were."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import lthdask
from lthdask.checks.folder import check, repair
from lthdask.commands.main import main
from lthdask.driver.keeping import drop_worse, ticket_bytes
from lthdask.driver.opening import open_study
from lthdask.driver.plan import plan
from lthdask.driver.remaining import Remaining, remaining
from lthdask.driver.sweep import Sweep
from lthdask.errors import InputError
from lthdask.flow import run
from lthdask.grid import Cell
from lthdask.options import Options
from lthdask.pruning.rule import prunable_weights
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Status
from lthdask.storage.ticket_file import read
from lthdask.storage.tickets import Tickets, final_weights
from lthdask.study import Study
from lthdask.worker.work import Work
from tests.conftest import MANIFEST
from tests.studies import made_study, made_ticket
from tests.test_flow import TINY, attempts
from tests.test_tickets import KEEP, files_of

FIRST = TINY.changed({"grid.thresholds": "0.5,0.9"})
KEPT_FIRST = Cell("ticket", 0, 0.5, 0)


@pytest.fixture(scope="module")
def first(local_client, tmp_path_factory):
    """A finished study that kept one ticket."""
    folder = tmp_path_factory.mktemp("first") / "run"
    run(FIRST, local_client, folder, options=Options(keep="0.5:0"))
    return folder


@pytest.fixture(scope="module")
def larger(local_client, first, tmp_path_factory):
    """The same study, run again to keep all of it."""
    folder = tmp_path_factory.mktemp("larger") / "run"
    shutil.copytree(first, folder)
    run(FIRST, local_client, folder, options=Options(**KEEP))
    return folder


def test_a_finished_study_that_is_to_keep_more_trains_just_that_again(first, larger, tmp_path):
    assert [file.name for file in first.glob("tickets/*")] == [f"{KEPT_FIRST}.safetensors"]
    left = remaining(open_study(FIRST, first, Options(keep="all")))
    others = {*FIRST.grid.cells()} - {KEPT_FIRST}
    assert set(left.cells) == set(left.done) == others
    assert (left.dense_runs, left.again) == (set(), {})
    assert files_of(larger, "results.zarr/**/*") == files_of(first, "results.zarr/**/*")
    for cell in FIRST.grid.cells():
        ticket = lthdask.load_ticket(Tickets(Folder(larger)).trained(cell))
        assert ticket.rewound
        metrics = Cube(larger / "results.zarr").metrics(cell)
        assert ticket.about["metrics"]["test_loss"] == metrics["test_loss"]
    assert check(larger) == []
    for options in (Options(), Options(keep="0.5"), Options(**KEEP)):
        assert remaining(open_study(FIRST, larger, options)).cells == []


def test_the_plan_counts_the_tickets_that_a_run_keeps(larger, tmp_path):
    cells, network = FIRST.grid.cells(), FIRST.outline()  # for images of three channels
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    prunable = sum(tensor.numel() for tensor in prunable_weights(network).values())
    planned = [ticket_bytes(FIRST, cell, 4 * weights, prunable) for cell in cells]
    none, trained, both = (
        plan(FIRST, tmp_path / "new", options=options, here=False).disk
        for options in (Options(), Options(keep="all"), Options(**KEEP))
    )
    assert trained - none == sum(size for size, _ in planned)
    assert both - trained == sum(size for _, size in planned)
    kept = Tickets(Folder(larger))
    for cell in cells:
        state = lthdask.load_ticket(kept.trained(cell)).weights
        weights = sum(tensor.numel() for tensor in state.values())
        prunable = sum(tensor.numel() for name, tensor in state.items() if "weight" in name)
        found = ticket_bytes(FIRST, cell, 4 * weights, prunable)
        for size, file in zip(found, (kept.trained(cell), kept.rewound(cell)), strict=True):
            assert file.stat().st_size - 3000 == pytest.approx(size, abs=1000)  # a head


def test_a_search_that_is_done_trains_again_what_is_to_be_kept_and_nothing_else(
    local_client, tmp_path
):
    """Also a control of a point that the search has its answer to."""
    study = FIRST.changed({"grid.rewind_epochs": "0", "grid.arms": "ticket,reinit"})
    run(study, local_client, tmp_path, options=Options(adaptive=0.5))
    before, statuses = files_of(tmp_path, "results.zarr/**/*"), Cube(tmp_path / "results.zarr")
    assert Status.SKIPPED in statuses.cells().values()
    run(study, local_client, tmp_path, options=Options(adaptive=0.5, keep="0.5::reinit"))
    assert files_of(tmp_path, "results.zarr/**/*") == before
    assert Tickets(Folder(tmp_path)).names() == {"reinit-r0-t0.5-k0"}


def test_a_study_that_grows_keeps_what_matches_of_what_is_there_and_of_what_comes(first):
    grown = FIRST.grown(thresholds=[0.7])
    left = remaining(open_study(grown, first, Options(keep="matching")))
    assert {cell.threshold for cell in left.cells} == {0.7}  # nothing is shown by one replicate


def test_results_stay_where_training_again_fails(first, tmp_path):
    marked = []

    class Marked:
        def mark(self, cell, status):
            marked.append(cell)

    cells, work = FIRST.grid.cells(), Work(FIRST, FIRST.engine.chosen(), Folder(tmp_path))
    left = Remaining(cells, [0], set(), done=set(cells[1:]))
    sweep = Sweep(work, Folder(first).manifest(), Marked(), left, None)
    for cell in cells:
        sweep._fail(cell, RuntimeError("out of memory"))
    assert marked == cells[:1]


def test_the_command_keeps_what_it_is_told_to_and_says_where(first, tmp_path):
    folder = shutil.copytree(first, tmp_path / "run")
    command = ["run", "--study", str(folder / "study.yaml"), "--out", str(folder)]
    kept = CliRunner().invoke(main, [*command, "--keep", "0.5:0", "--deploy", "local"])
    assert kept.exit_code == 0, kept.output
    assert "every cell is done" in kept.output
    assert f"1 ticket kept in {folder / 'tickets'}" in kept.output.replace("\n", "")
    more = CliRunner().invoke(main, [*command, "--keep", "0.7"])
    assert more.exit_code == 2
    assert (
        "--keep names the threshold 0.7, which is not asked for; there is 0.5, 0.9" in more.stderr
    )


def test_children_take_the_final_weights_of_kept_tickets_whose_own_are_gone(
    local_client, larger, tmp_path
):
    shutil.copytree(larger, tmp_path / "run")
    grown = FIRST.changed({"grid.arms": "ticket,ticket_child"})
    before = attempts(tmp_path / "run")
    results = run(grown, local_client, tmp_path / "run")
    assert attempts(tmp_path / "run") == before
    alone = run(grown, local_client, tmp_path / "alone")
    for name in ("barrier", "test_loss"):
        np.testing.assert_array_equal(results[name], alone[name])


def in_copy(larger, tmp_path):
    shutil.copytree(larger, tmp_path / "run")
    return tmp_path / "run", Tickets(Folder(tmp_path / "run"))


CHECKED = Cell("ticket", 0, 0.9, 2)


def flip(file):
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("part", "harm"),
    [
        ("trained", flip),
        ("trained", Path.unlink),
        ("rewound", lambda file: file.write_bytes(file.read_bytes()[:-1])),
        ("rewound", Path.unlink),
    ],
)
def test_a_damaged_ticket_is_named_and_removed_and_made_again(larger, tmp_path, part, harm):
    folder, kept = in_copy(larger, tmp_path)
    file = getattr(kept, part)(CHECKED)
    harm(file)
    (found,) = check(folder)
    assert (found.what, found.remedy) == (
        f"tickets/{file.name}",
        "a run that is to `keep` it makes it again",
    )
    repair(folder)
    assert check(folder) == []
    assert not file.exists()
    assert remaining(open_study(FIRST, folder, Options(**KEEP))).cells == [CHECKED]
    assert remaining(open_study(FIRST, folder)).cells == []


def test_a_ticket_whose_mask_does_not_fit_the_results_is_found(larger, tmp_path):
    """It is whole, and recorded as the cell's, but was trained under another mask."""
    folder, kept = in_copy(larger, tmp_path)
    other = replace(CHECKED, threshold=0.5)
    ticket, about = read(kept.trained(other))
    kept.drop(CHECKED)
    del about["digest"]
    kept.keep(CHECKED, ticket, None, about | {"cell": vars(CHECKED)})
    (found,) = check(folder)
    assert "its mask does not fit the density that the results have" in str(found)
    repair(folder)
    assert check(folder) == []
    assert not kept.are_there(CHECKED)


def test_a_ticket_of_another_cell_is_removed_and_one_of_no_cell_left_alone(larger, tmp_path):
    folder, kept = in_copy(larger, tmp_path)
    other = replace(CHECKED, rewind_epoch=0)
    shutil.copy(kept.trained(other), kept.trained(CHECKED))
    shutil.copy(kept.trained(CHECKED), kept.path / "ticket-r0-t0.95-k2.safetensors")
    (kept.path / ".ticket-r0-t0.5-k0.safetensors.0123").write_bytes(b"a writer was killed")
    assert final_weights(Folder(folder), CHECKED, "") is None  # nobody starts from it
    found = repair(folder)
    assert [(damage.what, damage.problem) for damage in found] == [
        (f"tickets/{CHECKED}.safetensors", f"it is that of {other}"),
        ("tickets/ticket-r0-t0.95-k2", "this study has no such cell"),
    ]
    assert check(folder) == found[1:]


def accuracy(cell):
    """Test accuracy: the dense run's; at the sparse threshold far, or uncertainly, below it."""
    if cell.threshold == 0.5:
        return 0.95 + 0.001 * cell.replicate
    return 0.5 + 0.001 * cell.replicate if cell.rewind_epoch == 0 else 0.95 - 0.04 * cell.replicate


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A study of three replicates that kept all its tickets, and its folder."""
    folder = made_study(
        tmp_path_factory.mktemp("judged") / "run", ("ticket",), 3, accuracy, sparse=0.95
    )
    study = Study.parse((folder / "study.yaml").read_text())
    Folder(folder).write_manifest(replace(MANIFEST, axes=study.grid.axes()))
    for cell in study.grid.cells():
        made_ticket(folder, cell)
    return study, folder


@pytest.mark.parametrize(
    "options", [{"keep": "none"}, {"keep": "all"}, {"keep": "0.5"}, {"replicates": 1}]
)
def test_nothing_is_dropped_without_a_verdict_that_was_asked_for(judged, options):
    study, folder = judged
    options = {"keep": "matching"} | options
    asked = study.changed({"grid.replicates": options.pop("replicates", 3)})
    drop_worse(open_study(asked, folder, Options(**options)))
    assert len(Tickets(Folder(folder)).names()) == 12


def test_matching_drops_what_is_shown_to_be_worse_and_nothing_else(judged, tmp_path):
    study, folder = judged[0], shutil.copytree(judged[1], tmp_path / "run")
    opened, kept = open_study(study, folder, Options(keep="matching")), Tickets(Folder(folder))
    before = kept.names()
    drop_worse(opened)
    assert before - kept.names() == {f"ticket-r{r}-t0.95-k0" for r in range(3)}
    assert not [*folder.glob("tickets/*-t0.95-k0*")]
    assert remaining(opened).cells == []  # what is worse is not trained again
    for cell in opened.cells:
        kept.drop(cell)
    found = {(cell.threshold, cell.rewind_epoch) for cell in remaining(opened).cells}
    assert found == {(0.5, 0), (0.5, 2)}  # nor what is undecided


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("none", []),
        ("all", ["ticket 0.5 0", "ticket 0.9 2", "reinit 0.9 0", "dense_child 0.5 2"]),
        ("matching", ["ticket 0.5 0", "ticket 0.9 2"]),
        ("0.9", ["ticket 0.9 2"]),
        ("0.9:2", ["ticket 0.9 2"]),
        ("0.9:0", []),
        ("0.5:0, 0.9:2:ticket", ["ticket 0.5 0", "ticket 0.9 2"]),
        ("0.9::reinit", ["reinit 0.9 0"]),
        ("0.9:2:reinit", ["reinit 0.9 0"]),  # which has no k
        ("0.9:2:dense_child", ["dense_child 0.5 2"]),  # which has no threshold
    ],
)
def test_a_selection_keeps_what_it_names(keep, expected):
    cells = [("ticket", 0.5, 0), ("ticket", 0.9, 2), ("reinit", 0.9, 0), ("dense_child", 0.5, 2)]
    kept = Options(keep=keep)
    found = [f"{a} {t} {k}" for a, t, k in cells if kept.keeps(Cell(a, 0, t, k))]
    assert found == expected


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"keep": "some"}, "`keep` takes none, matching, all, or a list .* got 'some'"),
        ({"keep": "0.5,"}, "got ''"),
        ({"keep": ["0.5"]}, "`keep` is a text"),
        ({"keep": "all", "masks_only": True}, "`masks_only` trains no cell, so there is none to"),
        ({"keep": "0.5:x"}, "got '0.5:x'"),
        ({"keep": "0.5:2:tickets"}, "unknown arm 'tickets'"),
        ({"keep_rewound": True}, "`keep_rewound` keeps nothing without `keep`"),
        ({"keep": "0.6"}, "names the threshold 0.6, which is not asked for; there is 0.5, 0.9"),
        ({"keep": "0.5:1"}, "names the rewind epoch 1, which is not asked for; there is 0, 2"),
        ({"keep": "0.5:0:reinit"}, "names the arm reinit, which is not asked for; there is ticket"),
    ],
)
def test_a_selection_that_cannot_be_is_refused_before_anything_is_written(tmp_path, given, problem):
    with pytest.raises(InputError, match=problem):
        open_study(FIRST, tmp_path / "run", Options(**given))
    assert not (tmp_path / "run").exists()


def test_what_matches_is_kept_of_tickets_alone(tmp_path):
    study = FIRST.changed({"grid.arms": "reinit"})
    with pytest.raises(InputError, match="`keep` matching looks for tickets that match; add"):
        open_study(study, tmp_path / "run", Options(keep="matching"))
