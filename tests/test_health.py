"""What is decided of a task that fails, and of the place where it did, as tables."""

import threading

import pytest

from lthdask.cluster.calls import _as_it_travels
from lthdask.cluster.health import Health


def noted(history, known="ABC"):
    """Return the health after a history: a task in capitals has succeeded, at a place."""
    health = Health(set(known))
    for task, place in (pair.split("@") for pair in history.split()):
        note = health.succeeded if task.isupper() else health.failed
        note(task.lower(), place)
    return health


SICK = [
    # Three different tasks in a row failed at B, and one of them succeeded elsewhere.
    ("a@B b@B c@B A@A", ["B"]),
    ("a@B b@B A@A c@B", ["B"]),
    ("x@A a@B X@B b@B c@B d@B B@C", ["B"]),
    # Two, or the same one again.
    ("a@B b@B A@A", []),
    ("a@B a@B a@B A@A", []),
    # In between, one succeeded there.
    ("a@B b@B D@B c@B A@A", []),
    # Nothing that failed there has succeeded elsewhere: the place, or the tasks?
    ("a@B b@B c@B D@A E@A", []),
    # An arm is broken: its tasks fail wherever they are, and others succeed.
    ("a@B b@B c@B a@A b@A c@A D@A D@B", []),
    ("a@A b@B c@A d@B a@B b@A c@B d@A E@A E@B", []),
    # A broken task beside a sick place.
    ("x@B x@A a@B b@B A@A", []),
    ("x@B x@A a@B b@B c@B A@A", ["B"]),
    # Two sick places, and one that is well: what failed at both says nothing of either.
    ("a@A b@B c@A d@B e@A f@B A@C B@C", ["A", "B"]),
]


@pytest.mark.parametrize(("history", "sick"), SICK)
def test_a_place_is_sick_where_different_tasks_fail_in_a_row_that_succeed_elsewhere(history, sick):
    assert sorted(noted(history).sick()) == sick


PREFERRED = [
    # Not where it failed; rather where nothing failed last.
    ("a@A", "ABC", "BC"),
    ("a@A b@B", "ABC", "C"),
    ("a@A b@B", "AB", "B"),
    ("a@A b@B B@B", "ABC", "BC"),
    # Anywhere, where it failed everywhere, or there is nowhere else.
    ("a@A a@B", "AB", "AB"),
    ("a@A", "A", "A"),
]


@pytest.mark.parametrize(("history", "there", "preferred"), PREFERRED)
def test_a_task_that_failed_is_tried_where_it_did_not(history, there, preferred):
    assert noted(history).preferred("a", set(there)) == set(preferred)


FORGIVEN = [
    ("", "AB", "", 0),
    # At one place only, where there are others; at most once over.
    ("a@A", "AB", "", 1),
    ("a@A a@A a@A a@A a@A", "AB", "", 3),
    ("a@A", "A", "", 0),
    ("a@A a@B", "AB", "", 0),
    # At a place that is left out.
    ("a@A", "AB", "A", 1),
    ("a@A a@B", "AB", "A", 1),
    ("a@A a@A a@A a@A a@A a@B", "ABC", "A", 6),
]


@pytest.mark.parametrize(("history", "known", "left_out", "forgiven"), FORGIVEN)
def test_failures_at_a_place_that_is_left_out_or_at_one_of_several_are_forgiven(
    history, known, left_out, forgiven
):
    health = noted(history, known)
    health.left_out.update(left_out)
    assert health.forgiven("a", most=3) == forgiven


def test_a_death_counts_as_a_failure_and_what_raised_counts_once():
    health = noted("a@A")
    health.died("a", ["A", "A", "B"])
    assert sorted(health.failures("a")) == ["A", "A", "B"]


def test_what_pickle_cannot_send_travels_as_text_so_that_its_place_arrives():
    plain, odd = ValueError("odd"), RuntimeError("locked")
    odd.lock = threading.Lock()
    assert _as_it_travels(plain) is plain
    assert repr(_as_it_travels(odd)) == "RuntimeError(\"RuntimeError('locked')\")"


def test_failures_at_places_that_are_left_out_are_forgiven_but_not_for_ever():
    health = Health()
    for _ in range(50):
        health.failed("a", "A")
    health.left_out.add("A")
    assert health.forgiven("a", most=3) == 9
