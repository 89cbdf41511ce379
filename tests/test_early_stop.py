"""What learning speed promises: a replicate that never got there is never left out of it."""

import json

import numpy as np
import pytest
import yaml

from lthdask.report.early_stop import AT_EARLY_STOP, early_stop, early_stop_table
from lthdask.report.summary import outcome
from lthdask.report.tables import tables
from lthdask.report.verdict import verdicts
from lthdask.storage.results import study_of
from lthdask.storage.schema import Status
from tests.test_report import rows
from tests.test_verdict import DENSE, minus, percent, results

TITLE = "learning speed, at the k chosen on the validation images: steps, test accuracy, %"
NEVER = np.inf
TICKET = [[minus(0, 0.1, -0.1), minus(-4, -4, -4)]]
FAST = {
    "early_stop_iteration": [[[20, 30, 40], [50, 50, 50]]],
    "early_stop_test_accuracy": [[percent(minus(-5, -5.1, -4.9)), percent(minus(-4, -4, -4))]],
    "iterations_to_dense": [[[30, NEVER, NEVER], [NEVER, NEVER, NEVER]]],
}


def made_up(**more):
    """Tickets at k=0 and 1, of which k=0 is better, and 5 points below dense at early stop."""
    return results({"ticket": TICKET}, speed=FAST, **more)


@pytest.mark.parametrize(
    ("steps", "median", "reached"),
    [
        ((30, 40, 80), 40, 3),
        ((30, 40, NEVER), 40, 2),
        ((30, NEVER, NEVER), NEVER, 1),
        ((NEVER, NEVER, NEVER), NEVER, 0),
    ],
)
def test_a_replicate_that_never_reached_the_dense_accuracy_counts_as_the_slowest(
    steps, median, reached
):
    found = early_stop(results({"ticket": [[DENSE]]}, speed={"iterations_to_dense": [[steps]]}))
    assert found.iterations_to_dense.item() == median
    assert (found.reached.item(), found.replicates.item()) == (reached, 3)


def test_where_half_of_the_replicates_never_got_there_no_median_step_is_given():
    two = results(
        {"ticket": [[[0.9, 0.9]]]}, [0.9, 0.9], speed={"iterations_to_dense": [[[30, NEVER]]]}
    )
    found = early_stop(two)
    assert (found.iterations_to_dense.item(), found.reached.item()) == (NEVER, 1)


@pytest.mark.parametrize("status", [s for s in Status if s != Status.DONE])
def test_only_replicates_that_are_done_count(status):
    found = early_stop(made_up(status={("ticket", 0, 0, 0): status})).isel(rewind_epoch=0)
    assert found.replicates.item() == 2
    assert found.early_stop_iteration.item() == 35
    assert (found.iterations_to_dense.item(), found.reached.item()) == (NEVER, 0)


def test_steps_and_the_accuracy_there_come_with_their_interval_and_those_of_the_dense_runs():
    found = early_stop(made_up()).isel(arm=0, threshold=0, rewind_epoch=0)
    half = 4.302653 * 10 / np.sqrt(3)  # of steps 20, 30, 40
    assert found.early_stop_iteration.item() == 30
    assert found.early_stop_iteration_interval.values == pytest.approx([30 - half, 30 + half])
    assert found[AT_EARLY_STOP].item() == pytest.approx(95.1 - 5)
    assert found[f"{AT_EARLY_STOP}_interval"].attrs["units"] == "%"
    assert found.dense_early_stop_iteration.item() == 40
    assert found[f"dense_{AT_EARLY_STOP}"].item() == pytest.approx(95)
    assert (found.dense_iterations_to_dense.item(), found.dense_replicates.item()) == (80, 3)


def test_the_verdict_at_early_stop_is_that_of_the_accuracies_there():
    """Dense is 95.1 % at its end, and 95.0 % where it would be stopped."""
    found = made_up()
    assert verdicts(found, 1).verdict.values.tolist() == [["matching", "worse"]]
    there = verdicts(found, 1, accuracy=AT_EARLY_STOP)
    assert there.verdict.values.tolist() == [["worse", "worse"]]
    assert there.minus_dense.values[0] == pytest.approx([-4.9, -3.9])
    assert there[AT_EARLY_STOP].values[0] == pytest.approx([90.1, 91.1])


def test_the_table_shows_every_arm_how_many_got_there_and_the_dense_run():
    random_mask = np.array(TICKET) - 0.05
    both = results({"ticket": TICKET, "random_mask": random_mask}, speed=FAST)
    both["early_stop_iteration"].loc[{"arm": "random_mask"}] = 60
    both["early_stop_test_accuracy"].loc[{"arm": "random_mask"}] = 80
    both["iterations_to_dense"].loc[{"arm": "random_mask"}] = 70
    assert rows(early_stop_table(both, 1)) == [
        TITLE,
        "threshold k arm n early stop accuracy there to dense reached verdict there",
        "0.5 0 ticket 3 30 ± 25 90.1 ± 0.2 never 1/3 worse",
        "random_mask 3 60 ± 0 80.0 ± 0.2 70 3/3",
        "dense 3 40 ± 0 95.0 ± 0.2 80 3/3",
    ]


def test_one_replicate_has_no_interval_and_no_verdict():
    assert rows(early_stop_table(made_up().isel(replicate=[1]))) == [
        TITLE,
        "threshold k arm n early stop accuracy there to dense reached",
        "0.5 0 ticket 1 30 90.1 never 0/1",
        "dense 1 40 95.1 80 1/1",
    ]


def test_the_table_is_shown_where_steps_are_measured_inside_epochs():
    found = made_up()
    assert TITLE not in [table.title for table in tables(found)]
    study = study_of(found)
    recipe = study["recipe"] | {"measure_every": 10}
    found.attrs["study"] = yaml.safe_dump(study | {"recipe": recipe})
    assert TITLE in [table.title for table in tables(found)]


def test_the_outcome_for_scripts_has_the_learning_speed_and_the_verdicts_there():
    values = json.loads(json.dumps(outcome(made_up(), 1), allow_nan=False))
    first = values["early_stop"][0]
    assert (first["arm"], first["threshold"], first["rewind_epoch"]) == ("ticket", 0.5, 0)
    assert (first["iterations_to_dense"], first["reached"], first["replicates"]) == (None, 1, 3)
    assert first["early_stop_iteration"] == 30
    assert first["early_stop_test_accuracy"] == pytest.approx(0.901)
    assert values["dense_early_stop"]["early_stop_test_accuracy"] == pytest.approx(0.95)
    assert [cell["verdict"] for cell in values["early_stop_verdicts"]] == ["worse", "worse"]
    assert values["early_stop_verdicts"][0]["minus_dense"] == pytest.approx(-0.049)
    assert [cell["verdict"] for cell in values["verdicts"]] == ["matching", "worse"]
