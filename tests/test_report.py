"""What the report promises: the map as it is, and nothing made of one replicate in silence."""

import io

import numpy as np
import pytest
from rich.console import Console

from lthdask.events import Event
from lthdask.grid import Cell
from lthdask.report.progress import duration, shown
from lthdask.report.summary import accuracy_map, outcome, sentences, sparsest_matching
from lthdask.storage.results import Cube, Status, open_results

THRESHOLDS, REWINDS = [0.5, 0.9, 0.97], [0, 2]


def results(tmp_path, accuracy, replicates=1, dense=0.95, status=None, layers=None):
    """A cube in which the accuracy of (threshold, k) is a row of `accuracy`."""
    axes = {
        "arm": ["ticket"],
        "replicate": range(replicates),
        "threshold": THRESHOLDS,
        "rewind_epoch": REWINDS,
    }
    about = {"study": {"name": "small"}}
    cube = Cube.create(tmp_path / "results.zarr", axes, 3, ["a", "b"], about, ("1", ""))
    for replicate in range(replicates):
        cube.write_dense(replicate, {3: {"test_accuracy": dense}})
        for threshold, row in zip(THRESHOLDS, accuracy, strict=True):
            for k, value in zip(REWINDS, row, strict=True):
                cell = Cell("ticket", replicate, threshold, k)
                if value is None:
                    continue
                metrics = {"test_accuracy": value + replicate / 100, "density": 1 - threshold}
                empty = {"a": {"density": 0.0}, "b": {"density": 0.5}}
                full = {"a": {"density": 0.5}, "b": {"density": 0.5}}
                cube.write(cell, Status.DONE, metrics, {}, empty if value < 0.2 else full, {}, "")
    for cell, what in (status or {}).items():
        cube.mark(Cell("ticket", 0, *cell), what)
    return open_results(tmp_path).load()


def text(renderable) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
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


def test_replicates_are_shown_as_mean_and_standard_deviation(tmp_path):
    shown = text(accuracy_map(results(tmp_path, [(0.9, 0.96)] * 3, replicates=2)))
    assert "90.5 ± 0.7" in shown


def test_the_sparsest_matching_cell_is_marked_when_it_is_one_replicate(tmp_path):
    found = results(tmp_path, [(0.9, 0.96), (0.8, 0.945), (0.1, None)])
    assert sparsest_matching(found, 0.01) == {
        "threshold": 0.9,
        "rewind_epoch": 2,
        "density": pytest.approx(0.1),
        "test_accuracy": 0.945,
        "replicates": 1,
    }
    said = sentences(found, 0.01)
    assert said[-1] == (
        "sparsest within 1 points of the dense accuracy: 10.00 % of the weights "
        "(threshold 0.9, k=2): 94.50 %, one replicate"
    )
    assert sentences(found, 0.001)[-1].startswith("sparsest within 0.1 points")
    assert "threshold 0.5" in sentences(found, 0.001)[-1]


def test_no_match_is_said_to_be_none(tmp_path):
    found = results(tmp_path, [(0.1, 0.2)] * 3)
    assert sparsest_matching(found, 0.01) is None
    assert sentences(found, 0.01)[-1] == "no cell is within 1 points of the dense accuracy"


def test_a_margin_is_met_by_an_accuracy_exactly_at_it(tmp_path):
    found = results(tmp_path, [(0.94, 0.5)] * 3, dense=0.95)
    assert sparsest_matching(found, 0.01)["threshold"] == 0.97


def test_a_replicate_that_is_missing_keeps_a_cell_from_matching(tmp_path):
    found = results(
        tmp_path,
        [(0.96, 0.96)] * 3,
        replicates=2,
        status={(0.97, 0): Status.FAILED, (0.97, 2): Status.DIVERGED},
    )
    assert sparsest_matching(found, 0.01)["threshold"] == 0.9
    assert "1 failed: threshold 0.97 k=0 replicate 0" in sentences(found, 0.01)
    assert "1 diverged: threshold 0.97 k=2 replicate 0" in sentences(found, 0.01)


def test_emptied_layers_are_named(tmp_path):
    found = results(tmp_path, [(0.9, 0.9), (0.9, 0.9), (0.1, 0.1)])
    assert "* threshold 0.97 empties a" in sentences(found, 0.01)
    assert outcome(found, 0.01)["emptied_layers"] == {"0.97": ["a"]}


def test_the_outcome_for_scripts_has_every_cell_and_null_for_what_is_not_known(tmp_path):
    values = outcome(results(tmp_path, [(0.9, 0.96), (0.8, 0.945), (0.1, None)]), 0.01)
    assert values["dense_test_accuracy"] == [0.95]
    assert len(values["cells"]) == 6
    last = values["cells"][-1]
    assert (last["status"], last["test_accuracy"], last["rewind_epoch"]) == ("pending", None, 2)
    assert values["cells"][0]["test_accuracy"] == 0.9


def test_a_log_gets_a_line_per_run(capsys):
    with shown(Console()) as watch:
        watch(Event("plan", cells=2, epochs=4))
        watch(Event("epoch", "a"))
        watch(Event("cell", "a", "done"))
        watch(Event("cell", "b", "diverged"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a done: 1/2 cells, ")
    assert lines[0].endswith(" left")
    assert lines[1].startswith("b diverged: 2/2 cells")


def test_a_terminal_gets_a_bar(capsys):
    console = Console(force_terminal=True, width=100)
    with shown(console) as watch:
        watch(Event("plan", cells=2, epochs=4))
        for _ in range(4):
            watch(Event("epoch", "a"))
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
    assert sparsest_matching(found, 0.5) is None


def test_the_status_decides_what_is_shown_and_not_what_is_written(tmp_path):
    found = results(
        tmp_path,
        [(0.9, 0.9)] * 3,
        replicates=2,
        status={(0.5, 0): Status.PENDING, (0.9, 0): Status.DIVERGED},
    )
    rows = [" ".join(line.split()) for line in text(accuracy_map(found)).splitlines()]
    assert "0.5 0.5000 91.0 (1/2) 90.5 ± 0.7" in rows
    pending = [c for c in outcome(found, 0.01)["cells"] if c["status"] == "pending"]
    assert [c["test_accuracy"] for c in pending] == [None]
