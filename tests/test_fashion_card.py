"""What our own card promises: the grid of fashion-lenet, and the signatures of the first paper."""

import importlib.util
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner
from rich.console import Console

import lthdask
from lthdask.commands.reproduce import command
from lthdask.errors import InputError
from lthdask.report.counterparts import medians
from lthdask.report.first_paper import FIRST_PAPER
from lthdask.report.published import Accuracy, Numbers, Place, Steps, protocol, published
from lthdask.report.reproduction import outcome, print_reproduction, reproduction
from lthdask.report.signatures import signatures
from lthdask.storage.schema import Status
from lthdask.study import Study
from tests.studies import made_study

CARD = published("fashion-lenet")
STUDY = Study.read("fashion-lenet")


def results(replicates=5, **changes):
    """A study's results, as opened, whose medians are those of the card."""
    study = STUDY.changed(protocol(CARD) | {"grid.replicates": replicates} | changes)
    axes = study.grid.axes()
    shape = tuple(map(len, axes.values()))
    status = np.full(shape, Status.NOT_APPLICABLE)
    accuracy, steps = np.full(shape, np.nan), np.full(shape, np.nan)
    spread = np.linspace(-0.2, 0.2, replicates)
    for place, (percent, _) in CARD.grid.cells.items():
        k = axes["rewind_epoch"].index(place.rewind_epoch or 0)
        at = (axes["arm"].index(place.arm), slice(None), CARD.remaining.index(place.remaining), k)
        status[at], accuracy[at] = Status.DONE, percent + spread
        if place in CARD.grid.speed:
            steps[at] = CARD.grid.speed[place].steps * np.exp(spread)
    flags = {
        "flag_values": [int(s) for s in Status],
        "flag_meanings": " ".join(s.name.lower() for s in Status),
    }
    dense = CARD.grid.dense.percent + spread - spread.mean()
    return xr.Dataset(
        {
            "status": (tuple(axes), status, flags),
            "test_accuracy": (tuple(axes), accuracy),
            "early_stop_iteration": (tuple(axes), steps),
        },
        {**axes, "dense_test_accuracy": ("replicate", dense)},
        {"study": yaml.safe_dump(study.to_dict())},
    )


def printed(found):
    console = Console(width=200, file=io.StringIO())
    print_reproduction(console, found)
    return console.file.getvalue()


def test_the_card_is_the_grid_of_its_study():
    assert CARD.schedule == "iterative"
    assert (STUDY.recipe.epochs, STUDY.grid.replicates) == (CARD.epochs, 5)
    assert [round(100 * (1 - t), 1) for t in STUDY.grid.thresholds] == list(CARD.remaining)
    assert {("ticket", 0), ("random_mask", 0), ("reinit", None)} <= {*CARD.columns}
    cells = {(c.arm, None if c.arm == "reinit" else c.rewind_epoch) for c in STUDY.grid.cells()}
    assert {*CARD.columns} <= cells
    timed = {place for place in CARD.grid.cells if place.arm != "lr_rewind"}
    assert CARD.grid.speed.keys() == timed
    assert 0.1 < CARD.deviation < 0.4


@pytest.mark.parametrize("runs", [3, 5, 10_000])
def test_no_number_of_runs_of_the_published_medians_breaks_a_signature(runs):
    cells = {place: a._replace(runs=runs) for place, a in CARD.grid.cells.items()}
    speed = {place: s._replace(runs=runs) for place, s in CARD.grid.speed.items()}
    found = signatures(replace(CARD.grid, cells=cells, speed=speed), CARD)
    assert [(s.number, s.holds) for s in found] == [(number, True) for number in FIRST_PAPER]
    assert all(check.value is not None for s in found for check in s.checks)


SPARSE = [row for row in CARD.remaining if row <= 21]
PLANTED = {
    "reinit learns as fast as tickets": (
        "i",
        {},
        {Place("reinit", None, r): CARD.grid.speed[Place("ticket", 0, r)] for r in SPARSE[:3]},
    ),
    "tickets end with dense": ("ii", {Place("ticket", 0, 32.8): 88.0}, {}),
    "reinit ends with tickets": (
        "iii",
        {Place("reinit", None, r): CARD.grid.cells[Place("ticket", 0, r)].percent for r in SPARSE},
        {},
    ),
    "random masks end above tickets at one density": (
        "iii",
        {Place("random_mask", 0, 6.9): 89.5},
        {},
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_caught_and_breaks_nothing_else(planted):
    number, cells, speed = PLANTED[planted]
    cells = {place: Accuracy(percent, 5) for place, percent in cells.items()}
    numbers = Numbers(CARD.grid.cells | cells, CARD.grid.dense, CARD.grid.speed | speed)
    found = signatures(numbers, CARD)
    assert [s.number for s in found if s.holds is False] == [number]
    assert [s.number for s in found if not s.holds] == [number]


def test_few_runs_leave_a_signature_open_and_missing_cells_are_named():
    near = {Place("ticket", 0, r): Accuracy(88.34 + 0.25, 1) for r in CARD.remaining}
    found = signatures(replace(CARD.grid, cells=CARD.grid.cells | near), CARD)[1]
    assert (found.holds, found.missing) == (None, [])
    found = signatures(Numbers(CARD.grid.cells, None), CARD)
    assert [s.holds for s in found] == [None, None, True]
    assert {"reinit at 32.8 %", "ticket k=0 at 4.4 %"} <= {*found[0].missing}
    assert found[1].missing == ["dense"]


def test_speed_is_compared_as_a_factor():
    place = Place("ticket", 0, 32.8)
    twice = CARD.grid.speed | {
        Place("reinit", None, r): Steps(2.5 * CARD.grid.speed[Place("ticket", 0, r)].steps, 5)
        for r in CARD.remaining
    }
    check = signatures(replace(CARD.grid, speed=twice), CARD)[0].checks[1]
    assert check.value == pytest.approx(math.log(2.5))
    assert str(check).startswith(f"reinit ÷ k=0 at {place.remaining} %: 2.50 (≥ 1.")


def test_results_become_the_published_numbers_and_hold():
    ours = medians(results(), CARD)
    for place, accuracy in CARD.grid.cells.items():
        assert ours.cells[place] == (pytest.approx(accuracy.percent), 5)
    for place, said in CARD.grid.speed.items():
        assert ours.speed[place] == (pytest.approx(said.steps), 5)
    found = reproduction(results(), CARD)
    assert (found.holds, found.differences) == (True, [])
    assert f"* 0 of {len(CARD.grid.cells) + 1} differ" in printed(found)
    assert "known differences" not in printed(found)
    assert {s["verdict"] for s in outcome(found)["signatures"]} == {"holds"}
    with pytest.raises(InputError, match="is itself of iterative pruning; give results of it"):
        reproduction(results(), CARD, results())


def test_a_subset_of_the_images_compares_nothing_and_says_so():
    text = printed(reproduction(results(**{"data.subset": "6000"}), CARD))
    assert "nothing is comparable here, neither the numbers nor the signatures" in text
    assert "differ from the published ones" not in text
    assert not any(line.split()[:1] == ["difference"] for line in text.splitlines())


def test_a_fraction_of_the_epochs_keeps_rewind_epochs_apart_or_is_refused():
    part = protocol(CARD, 0.75)
    assert STUDY.changed(part).recipe.epochs == 6
    if len(CARD.rewind_epochs(8)) > 1:
        with pytest.raises(InputError, match="leave at least 5 of 8 epochs"):
            protocol(CARD, 0.25)


def test_what_is_refused_is_one_sentence(tmp_path):
    arguments = ["fashion-lenet", "--subset", "5059", "--data", str(tmp_path)]
    done = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "run")])
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "5000 validation images and a batch of 60, 5060 at least; got 5059" in done.stderr


def test_a_card_is_written_from_the_cube(tmp_path):
    script = Path(__file__).parent.parent / "docs" / "card.py"
    spec = importlib.util.spec_from_file_location("card", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def pending(cell):
        return Status.PENDING if str(cell) == "ticket-r1-t0.9-k2" else Status.DONE

    folder = made_study(
        tmp_path / "run",
        ("ticket", "reinit"),
        3,
        lambda cell: 0.9 + 0.01 * cell.replicate**2 - cell.threshold / 100,
        pending,
    )
    written = yaml.safe_load(module.card(lthdask.open_results(folder)))
    assert [(c["arm"], c["rewind_epoch"]) for c in written["iterative"]] == [
        ("ticket", 0),
        ("reinit", None),
    ]
    ticket = written["iterative"][0]
    assert ticket["accuracy"] == [90.5, 90.1]
    assert ticket["deviation"] == pytest.approx([np.std([0, 1, 4], ddof=1)] * 2, abs=1e-3)
    assert (ticket["steps"], ticket["steps_deviation"]) == ([30, 30], [0, 0])
    assert written["remaining"] == [50.0, 10.0]
    assert (written["dense"]["accuracy"], written["replicates"]) == (95.0, 3)


def test_the_readme_begins_with_the_first_table_of_the_page():
    root = Path(__file__).parent.parent
    short = {}
    for page in ("README.md", "docs/fashion.md"):
        text = (root / page).read_text()
        short[page] = text.split("<!-- short: ")[1].split("<!-- end: short -->")[0]
    assert short["README.md"] == short["docs/fashion.md"]
    assert short["README.md"].count("\n| ") == 2 + len(STUDY.grid.thresholds) // 2
    assert (root / "docs" / "pictures" / "fashion.png").stat().st_size < 100_000
