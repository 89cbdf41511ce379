"""What the report promises: the map as it is, and nothing made of one replicate in silence."""

import io
import json
import re

import numpy as np
import pytest
import yaml
from rich.console import Console
from rich.table import Table

from lthdask.events import Event
from lthdask.grid import Cell
from lthdask.report.accuracy_map import accuracies, print_table
from lthdask.report.progress import duration, shown
from lthdask.report.summary import outcome, points, sentences, sparsest_matching
from lthdask.report.tables import accuracy_map, arms_table, between, tables, verdict_map
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.results import open_results, study_of
from lthdask.storage.schema import Extent, Status
from tests.test_verdict import minus
from tests.test_verdict import results as made_up

THRESHOLDS, REWINDS = [0.5, 0.9, 0.97], [0, 2]


def results(tmp_path, accuracy, replicates=1, dense=0.95, status=None, validation=None):
    """A cube in which the accuracy of (threshold, k) is a row of `accuracy`.

    On the validation images, too, if `validation` does not give another one.
    """
    axes = {
        "arm": ["ticket"],
        "replicate": range(replicates),
        "threshold": THRESHOLDS,
        "rewind_epoch": REWINDS,
    }
    about = {"study": {"name": "small"}}
    create_cube(tmp_path / "results.zarr", Extent(axes, 3, ["a", "b"]), about)
    cube = Cube(tmp_path / "results.zarr")
    for replicate in range(replicates):
        cube.write_dense(replicate, {3: {"test_accuracy": dense, "validation_accuracy": dense}})
        for i, threshold in enumerate(THRESHOLDS):
            for j, k in enumerate(REWINDS):
                cell, value = Cell("ticket", replicate, threshold, k), accuracy[i][j]
                if value is None:
                    continue
                metrics = {
                    "test_accuracy": value + replicate / 100,
                    "validation_accuracy": (validation or accuracy)[i][j] + replicate / 100,
                    "density": 1 - threshold,
                }
                empty = {"a": {"density": 0.0}, "b": {"density": 0.5}}
                full = {"a": {"density": 0.5}, "b": {"density": 0.5}}
                cube.write(cell, Status.DONE, metrics, {}, empty if value < 0.2 else full, {}, "")
    for cell, what in (status or {}).items():
        cube.mark(Cell("ticket", 0, *cell), what)
    return open_results(tmp_path, "layers")


def text(renderable) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_the_map_shows_percent_by_threshold_and_rewind_epoch_beside_the_dense_run(tmp_path):
    shown = text(accuracy_map(results(tmp_path, [(0.9, 0.96), (0.8, 0.945), (0.1, None)])))
    rows = [line.split() for line in shown.splitlines()]
    assert ["threshold", "density", "k=0", "k=2"] in rows
    assert ["0.5", "0.5000", "90.0", "96.0"] in rows
    assert ["0.9", "0.1000", "80.0", "94.5"] in rows
    assert ["0.97*", "0.0300", "10.0", "pending"] in rows
    assert ["dense", "1", "95.0"] in rows


def test_a_table_of_a_wide_grid_shows_40_of_its_rows_and_columns_and_says_so():
    thresholds, ks = np.linspace(0.5, 0.9, 41), np.arange(118)
    accuracy = 50 + thresholds[:, None] + ks / 100
    done = np.full((1, 41, 118), Status.DONE)
    of = (done, accuracy[None], 1 - np.broadcast_to(thresholds[:, None], done.shape))
    shown = accuracies(thresholds.tolist(), ks.tolist(), *of, np.array([95.0]))
    assert shown.title == (
        "test accuracy, %; 40 of 41 thresholds and 40 of 118 rewind epochs, "
        "all by lthdask report --csv FILE"
    )
    heads = [str(column.header) for column in shown.columns]
    assert heads == ["threshold", "density", *(f"k={k}" for k in range(0, 118, 3))]
    assert [*shown.columns[0].cells][::39] == ["0.5", "0.9"]
    assert [*shown.columns[-1].cells][39] == f"{50 + 0.9 + 1.17:.1f}"
    whole = accuracies(thresholds[:40].tolist(), [0], *(v[:, :40, :1] for v in of), np.array([95]))
    assert (whole.title, len(whole.rows)) == ("test accuracy, %", 41)


def test_verdicts_and_frontier_of_a_wide_grid_stand_below_their_own_rewind_epoch():
    ticket = np.full((2, 79, 3), 0.90)
    ticket[:, 40:] = 0.96
    ticket += np.array([0.0, 0.001, -0.001])
    table = verdict_map(made_up({"ticket": ticket}), 1)
    assert table.title == (
        "verdict, at a margin of 1 point; 40 of 79 rewind epochs, all by lthdask report --csv FILE"
    )
    columns = {str(column.header): [*column.cells] for column in table.columns}
    assert list(columns)[2:] == [f"k={k}" for k in range(0, 79, 2)]
    assert columns["k=38"][:3] == ["worse", "worse", "?"]
    assert columns["k=40"][:3] == ["matching", "matching", "≤ 40.00"]


def test_replicates_are_shown_as_mean_and_standard_deviation(tmp_path):
    shown = text(accuracy_map(results(tmp_path, [(0.9, 0.96)] * 3, replicates=2)))
    assert "90.5 ± 0.7" in shown


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.05, 0.5, "5.00 to 50.00"),
        (0.05, 1.0, "≥ 5.00"),
        (0.0, 0.5, "≤ 50.00"),
        (0.0, 1.0, "?"),
        (np.nan, np.nan, "?"),
    ],
)
def test_an_end_of_a_frontier_that_no_ticket_gives_is_open(low, high, said):
    assert between(low, high) == said


@pytest.mark.parametrize("terminal", [False, True], ids=["log", "terminal"])
def test_the_map_loses_no_digit_where_the_output_is_narrower(tmp_path, terminal):
    console = Console(width=20, file=io.StringIO(), force_terminal=terminal)
    print_table(console, accuracy_map(results(tmp_path, [(0.9, 0.96)] * 3, replicates=2)))
    rows = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "0.97 0.0300 90.5 ± 0.7 96.5 ± 0.7" in rows


def test_the_sparsest_matching_cell_is_marked_when_it_is_one_replicate(tmp_path):
    found = results(tmp_path, [(0.9, 0.96), (0.8, 0.945), (0.1, None)])
    assert sparsest_matching(found, 1) == {
        "threshold": 0.9,
        "rewind_epoch": 2,
        "density": pytest.approx(0.1),
        "validation_accuracy": 0.945,
        "test_accuracy": 0.945,
        "dense_test_accuracy": 0.95,
        "replicates": 1,
        "cells": 5,
        "minus_dense": pytest.approx(-0.005),
        "minus_dense_interval": {"low": None, "high": None},
    }
    said = sentences(found, 1)
    assert said[-1] == (
        "sparsest within 1 point of the dense accuracy on the validation images: "
        "10.00 % of the weights (threshold 0.9, k=2), test accuracy 94.50 %, dense 95.00 %; "
        "one replicate: this is one draw, and has no interval"
    )
    assert sentences(found, 0.1)[-1].startswith("sparsest within 0.1 points")
    assert "threshold 0.5" in sentences(found, 0.1)[-1]


def test_the_sparsest_has_an_interval_that_allows_for_the_choice():
    """Ticket − dense is −0.2, 0, −0.1 points, and it was chosen from four cells."""
    cells = [[minus(0, 0, 0)] * 2, [minus(-0.2, 0, -0.1), minus(-9, -9, -9)]]
    found = made_up({"ticket": cells})
    best = sparsest_matching(found, 1)
    assert (best["threshold"], best["cells"]) == (0.6, 4)
    assert best["minus_dense"] == pytest.approx(-0.001)
    # One of 1,000 images is the least deviation; t of two degrees of freedom at 0.05 / 8.
    half = 8.860 * 0.001 / np.sqrt(3)
    low, high = -0.001 - half, -0.001 + half
    assert best["minus_dense_interval"] == pytest.approx({"low": low, "high": high}, rel=1e-3)
    assert sentences(found, 1)[-1] == (
        "sparsest within 1 point of the dense accuracy on the validation images: 40.00 % of the "
        "weights (threshold 0.6, k=0), test accuracy 95.00 %, dense 95.10 %; ticket − dense "
        "−0.10 ± 0.51 points, a 95 % interval that allows for the choice from 4 cells and lies "
        "within the margin"
    )
    assert sentences(found, 0.5)[-1].endswith("4 cells and reaches beyond the margin")


def test_a_replicate_that_collapsed_is_named_and_marked():
    dense = [0.95] * 4
    fine, fell = minus(0, 0.1, -0.1, 0, dense=dense), minus(0.1, 0, -0.1, -80, dense=dense)
    found = made_up({"ticket": [[fine, fine], [fine, fell]]}, dense)
    assert "0.6 0.4000 95.0 ± 0.1 75.0 ± 40.0†" in rows(accuracy_map(found))
    assert "0.6 0.4000 matching undecided" in rows(verdict_map(found, 1))
    said = sentences(found, 1)
    assert said[0] == "1 far below the other replicates (†): threshold 0.6 k=1 replicate 3"
    assert sparsest_matching(found, 90)["cells"] == 3  # nor is it chosen, whatever the margin


def test_a_mask_of_iterative_pruning_costs_the_rounds_before_it_too():
    """T = 2, k = 1 at the second round; reinit has the mask of the first k, 0."""
    found = with_arms(("reinit",))
    found["validation_accuracy"].loc[{"arm": "ticket", "rewind_epoch": 0}] = 10
    assert "0.6 1 ticket 3 95.1 ± 2.6 1 3" in rows(arms_table(found))
    study = study_of(found) | {"pruning": {"schedule": "iterative"}}
    found.attrs["study"] = yaml.safe_dump(study)
    shown = rows(arms_table(found))
    assert "0.5 1 ticket 3 95.3 ± 0.2 1 3" in shown
    assert "0.6 1 ticket 3 95.1 ± 2.6 1 4" in shown
    second = shown[shown.index("0.6 1 ticket 3 95.1 ± 2.6 1 4") + 1]
    assert second.startswith("reinit")
    assert second.endswith("2 6")


@pytest.mark.parametrize(
    ("margin", "said"),
    [(1.0, "1 point"), (0.5, "0.5 points"), (2.0, "2 points"), (0.0, "0 points")],
)
def test_one_point_is_singular(margin, said):
    assert points(margin) == said


def test_no_match_is_said_to_be_none(tmp_path):
    found = results(tmp_path, [(0.1, 0.2)] * 3)
    assert sparsest_matching(found, 1) is None
    assert sentences(found, 1)[-1] == (
        "no cell is within 1 point of the dense accuracy on the validation images"
    )


@pytest.mark.parametrize(
    ("dense", "margin", "learnt"),
    [
        (0.10, 1, False),  # gives one answer
        (42 / 300, 1, False),  # of 33 in 300 expected, 42 or more occur in 6.2 % of all cases
        (43 / 300, 1, True),  # and 43 or more in 4.3 %
        (0.95, 1, True),
        (0.95, 90, False),  # at such a margin, one without a weight matches
    ],
)
def test_nothing_matches_a_dense_network_that_could_be_matched_without_a_weight(
    tmp_path, dense, margin, learnt
):
    found = results(tmp_path, [(0.96, 0.96)] * 3, dense=dense)
    found.attrs |= {"majority": 0.1, "study": "{name: small, data: {validation: 300}}"}
    values, said = outcome(found, margin), sentences(found, margin)[-1]
    assert values["dense_has_learnt"] is learnt
    assert (values["sparsest_matching"] is not None) is learnt
    assert said.startswith("sparsest within") is learnt
    too_little = (
        f"the dense network has learnt too little to be matched: it has {100 * dense:.2f} % on "
        f"the validation images, where the same answer for all of them has 10.00 %, and a ticket "
        f"matches within {'1 point' if margin == 1 else '90 points'} of the dense accuracy; "
        "train for more epochs, or set a smaller matching_margin"
    )
    assert (said == too_little) is not learnt


def test_the_sparsest_matching_cell_is_chosen_without_the_test_images(tmp_path):
    validation = [(0.95, 0.95), (0.95, 0.96), (0.5, 0.5)]
    tests = [(0.9, 0.9), (0.99, 0.7), (0.99, 0.99)], [(0.1, 0.1), (0.2, 0.3), (0.9, 0.4)]
    for name, test in zip("ab", tests, strict=True):
        (tmp_path / name).mkdir()
        found = results(tmp_path / name, test, validation=validation)
        best = sparsest_matching(found, 1)
        assert (best["threshold"], best["rewind_epoch"]) == (0.9, 2)
        assert (best["validation_accuracy"], best["test_accuracy"]) == (0.96, test[1][1])


def test_a_margin_is_met_by_an_accuracy_exactly_at_it(tmp_path):
    found = results(tmp_path, [(0.94, 0.5)] * 3, dense=0.95)
    assert sparsest_matching(found, 1)["threshold"] == 0.97


def test_a_replicate_that_is_missing_keeps_a_cell_from_matching(tmp_path):
    found = results(
        tmp_path,
        [(0.96, 0.96)] * 3,
        replicates=2,
        status={(0.97, 0): Status.FAILED, (0.97, 2): Status.DIVERGED},
    )
    assert sparsest_matching(found, 1)["threshold"] == 0.9
    assert "1 failed: threshold 0.97 k=0 replicate 0" in sentences(found, 1)
    assert "1 diverged: threshold 0.97 k=2 replicate 0" in sentences(found, 1)


def test_emptied_layers_are_named(tmp_path):
    found = results(tmp_path, [(0.9, 0.9), (0.9, 0.9), (0.1, 0.1)])
    assert "* threshold 0.97 empties a" in sentences(found, 1)
    assert outcome(found, 1)["emptied_layers"] == {"0.97": ["a"]}


def test_the_outcome_for_scripts_has_every_cell_and_null_for_what_is_not_known(tmp_path):
    values = outcome(results(tmp_path, [(0.9, 0.96), (0.8, 0.945), (0.1, None)]), 1)
    assert values["dense_test_accuracy"] == [0.95]
    assert values["dense_has_learnt"] is None
    assert len(values["cells"]) == 6
    last = values["cells"][-1]
    assert (last["status"], last["test_accuracy"], last["rewind_epoch"]) == ("pending", None, 2)
    assert values["cells"][0]["test_accuracy"] == 0.9


def test_a_log_gets_a_line_per_run(capsys):
    with shown(Console()) as watch:
        watch(Event("plan", status="float32 on cpu: as asked for", cells=2, epochs=4))
        watch(Event("epoch", "a", epochs=1))
        watch(Event("cell", "a", "done"))
        watch(Event("cell", "b", "diverged"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "float32 on cpu: as asked for"
    assert lines[1].startswith("a done: 1/2 cells, ")
    assert lines[1].endswith(" left")
    assert lines[2].startswith("b diverged: 2/2 cells")


def test_a_log_says_once_a_minute_that_a_long_run_goes_on(capsys):
    now = 0.0
    with shown(Console(), clock=lambda: now) as watch:
        watch(Event("plan", cells=2, epochs=400))
        for now in (1.0, 59.0, 61.0, 119.0, 122.0):
            watch(Event("epoch", f"dense run at {now:g} s", epochs=1))
        watch(Event("cell", "a", "done"))
        for now in (181.0, 183.0):
            watch(Event("epoch", f"cell at {now:g} s", epochs=1))
    heads = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert heads == ["dense run at 61 s", "dense run at 122 s", "a done", "cell at 183 s"]


def test_a_terminal_gets_a_bar(capsys):
    console = Console(force_terminal=True, width=100)
    with shown(console) as watch:
        watch(Event("plan", cells=2, epochs=4))
        for _ in range(4):
            watch(Event("epoch", "a", epochs=1))
        watch(Event("cell", "a", "done"))
        watch(Event("cell", "b", "failed"))
    out = capsys.readouterr().out
    assert "2/2 cells" in out
    assert "b failed" in out


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (45, "45 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (356400, "4 d 3 h")],
)
def test_times_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said


def test_nan_is_never_taken_for_a_match(tmp_path):
    found = results(tmp_path, [(0.9, float("nan"))] * 3, dense=np.nan)
    assert sparsest_matching(found, 50) is None


def test_the_status_decides_what_is_shown_and_not_what_is_written(tmp_path):
    found = results(
        tmp_path,
        [(0.9, 0.9)] * 3,
        replicates=2,
        status={(0.5, 0): Status.PENDING, (0.9, 0): Status.DIVERGED},
    )
    rows = [" ".join(line.split()) for line in text(accuracy_map(found)).splitlines()]
    assert "0.5 0.5000 91.0 (1/2) 90.5 ± 0.7" in rows
    pending = [c for c in outcome(found, 1)["cells"] if c["status"] == "pending"]
    assert [c["test_accuracy"] for c in pending] == [None]


TICKET = [
    [minus(0, 0.1, -0.1), minus(0.2, 0.1, 0.3)],
    [minus(-5, -6, -5.5), minus(-1, 0, 1)],
    [minus(0, 0, 0), minus(0, 0, 0)],
]
STATUS = {
    ("ticket", 1, 1, 0): Status.DIVERGED,
    **{("ticket", replicate, 2, 0): Status.SKIPPED for replicate in range(3)},
    **{("ticket", replicate, 2, 1): Status.NOT_APPLICABLE for replicate in range(3)},
    ("random_mask", 0, 0, 1): Status.FAILED,
}


def with_arms(arms=("fine_tune", "random_mask", "reinit", "ticket_child")):
    """Three thresholds by two k's, three replicates; every other arm 2 points below."""
    below = {arm: np.array(TICKET) - 0.02 for arm in arms}
    status = {at: what for at, what in STATUS.items() if at[0] in ("ticket", *arms)}
    return made_up(below | {"ticket": TICKET}, status=status)


def rows(table):
    lines = [" ".join(line.split()) for line in text(table).splitlines()]
    return [line for line in lines if line and not line.startswith("─")]


def test_skipped_and_not_applicable_cells_read_as_such_and_are_never_pending():
    found = with_arms()
    assert "0.7 0.3000 skipped –" in rows(accuracy_map(found))
    assert "0.7 0.3000 skipped –" in rows(verdict_map(found, 1))
    said = sentences(found, 1)
    assert not any("pending" in line for line in said)
    assert "1 failed: random_mask threshold 0.5 k=1 replicate 0" in said
    assert "1 diverged: threshold 0.6 k=0 replicate 1" in said
    assert any(line.startswith("3 skipped: threshold 0.7 k=0 replicate 0, ") for line in said)


def test_the_verdict_map_says_the_verdicts_in_short_and_the_frontier_below():
    assert rows(verdict_map(with_arms(), 1)) == [
        "verdict, at a margin of 1 point",
        "threshold density k=0 k=1",
        "0.5 0.5000 winning winning",
        "0.6 0.4000 undecided (2/3) undecided",
        "0.7 0.3000 skipped –",
        "frontier % 50.00 ≤ 40.00",
        "interval % ≤ 50.00 ≤ 50.00",
    ]


def test_the_table_of_arms_compares_them_at_the_k_chosen_on_the_validation_images():
    found = with_arms()
    found["validation_accuracy"].loc[{"arm": "ticket", "rewind_epoch": 0}] = 10
    shown = rows(arms_table(found))
    # Ticket − reinit is 2.2, 2.0, 2.4 points: 4.303 · 0.2 / √3 = 0.5 to each side.
    assert shown[1:7] == [
        "threshold k arm n accuracy ticket − arm to settle epochs + mask",
        "0.5 1 ticket 3 95.3 ± 0.2 1 3",
        "random_mask 2 93.3 ± 0.9 2.0 ± 0.9 ~2 (2–4) 1 3",
        "reinit 3 93.1 ± 0.4 2.2 ± 0.5 ~3 (2–3) 2 4",
        "fine_tune 3 93.3 ± 0.2 2.0 ± 0.2 ~2 (2–3) 1 3",
        "ticket_child 3 93.3 ± 0.2 1 3",
    ]
    assert shown[7].startswith("0.6 1 ticket 3 95.1 ± 2.6")
    assert not any(row.startswith("0.7") for row in shown)


def test_to_settle_says_at_least_where_its_interval_is_open():
    found = with_arms()
    found["validation_accuracy"].loc[{"arm": "ticket", "rewind_epoch": 0}] = 10
    found["test_accuracy"].loc[{"arm": "reinit", "threshold": 0.5}] += (
        2.1  # 0.1 below: 0.1, −0.1, 0.3
    )
    found["test_accuracy"].loc[{"arm": "fine_tune", "threshold": 0.5}] += 2.0  # equal
    shown = rows(arms_table(found))
    assert shown[4] == "reinit 3 95.2 ± 0.4 0.1 ± 0.5 ~30 (≥ 8) 2 4"
    assert shown[5] == "fine_tune 3 95.3 ± 0.2 0.0 ± 0.2 ≥ 20 1 3"


def test_one_replicate_has_no_interval_and_no_verdict_map(tmp_path):
    found = with_arms().isel(replicate=[0])
    assert "0.5 1 ticket 1 95.2 1 3" in rows(arms_table(found))
    assert rows(arms_table(found))[0].endswith("validation images: test accuracy, %")
    assert len(tables(found, 1)) == 2
    assert len(tables(found.sel(arm=["ticket"]), 1)) == 1
    assert len(tables(with_arms(), 1)) == 3


def test_the_outcome_for_scripts_has_verdicts_frontier_and_controls():
    values = json.loads(json.dumps(outcome(with_arms(), 1), allow_nan=False))
    assert len(values["verdicts"]) == 6
    first = values["verdicts"][0]
    assert (first["threshold"], first["rewind_epoch"], first["replicates"]) == (0.5, 0, 3)
    assert first["verdict"] == "winning ticket"
    assert first["minus_dense"] == pytest.approx(0, abs=1e-12)
    assert first["minus_control"]["random_mask"] == pytest.approx(0.02)
    assert first["minus_dense_interval"]["high"] == pytest.approx(0.00248, abs=1e-5)
    assert values["verdicts"][4]["minus_dense"] is None
    assert values["verdicts"][4]["verdict"] == "undecided"
    assert values["frontier"][0] == {
        "rewind_epoch": 0,
        "density": 0.5,
        "at_edge": False,
        "density_interval": {"low": 0.0, "high": 0.5},
    }
    control = values["controls"][0]
    assert (control["threshold"], control["rewind_epoch"]) == (0.5, 1)
    assert control["replicates"] == {"random_mask": 2, "reinit": 3, "fine_tune": 3}
    assert control["replicates_to_settle"]["fine_tune"] == 2
    assert control["replicates_to_settle_interval"]["fine_tune"] == {"low": 2, "high": 3}
    assert "controls" in outcome(with_arms(()), 1)


def test_outcomes_have_a_colour_in_a_terminal_and_nowhere_else():
    """A terminal that shows colours, one that is asked not to, and a pipe."""
    texts = []
    for terminal, no_colour in ((True, False), (True, True), (False, False)):
        table = Table("verdict", "note", box=None)
        table.add_row("winning", "93.0†")
        table.add_row("worse (2/3)", "failed")
        console = Console(
            file=io.StringIO(),
            force_terminal=terminal,
            no_color=no_colour,
            color_system="standard" if terminal else "auto",
        )
        print_table(console, table)
        texts.append(console.file.getvalue())
    coloured, plain, piped = texts
    for text in (
        "\x1b[32mwinning",
        "\x1b[31mworse\x1b[0m (2/3)",
        "93.0\x1b[33m†",
        "\x1b[31mfailed",
    ):
        assert text in coloured
    assert not re.search(r"\x1b\[3\d", plain)
    assert "\x1b" not in piped
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == piped
