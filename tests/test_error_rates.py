"""What a verdict promises over many studies: hardly any map holds a false one."""

from functools import cache

import numpy as np
import pytest
from scipy import stats

from benchmarks.verdicts import false_verdicts, judged, maps, pictures
from lthdask.report.verdict import MATCHING, NO_BETTER, WINNING

MARGIN, COUNT = 1.0, 200
PICTURES = {name[0]: truth for name, truth in pictures(MARGIN).items()}
LIMIT = 0.05 + 3 * np.sqrt(0.05 * 0.95 / COUNT)
"""Share of maps: 5 %, and three standard errors of the simulation."""


@cache
def made_up(picture, collapse=0.0):
    """Results of 8 x 6 cells at five replicates, and their verdicts."""
    results = maps(PICTURES[picture], (8, 6), 5, COUNT, noise=0.25, collapse=collapse)
    return results, judged(results, MARGIN)


def questions_adjusted_apart(results, least):
    """Return which cells would win if each part of the claim were adjusted for itself."""
    runs = results.test_accuracy.transpose("map", "arm", "threshold", "rewind_epoch", ...).values
    dense = results.dense_test_accuracy.transpose("map", ...).values[:, None, None]
    ticket, mask, reinit = np.moveaxis(runs, 1, 0)

    def p(other):
        return stats.ttest_rel(ticket, other, axis=-1, alternative="greater").pvalue

    def adjusted(p):
        flat = stats.false_discovery_control(p.reshape(len(p), -1), axis=-1)
        return flat.reshape(p.shape)

    controls = np.maximum(p(mask + least), p(reinit[:, :, :1] + least))
    matching = p(np.broadcast_to(dense - MARGIN, ticket.shape))
    return (adjusted(matching) <= 0.05) & (adjusted(controls) <= 0.05)


@pytest.mark.parametrize(("picture", "least"), [("a", 0.0), ("b", MARGIN)])
def test_no_ticket_wins_where_each_half_of_the_map_has_one_part_of_the_claim(picture, least):
    results, found = made_up(picture)
    apart = questions_adjusted_apart(results, least)
    assert apart.any((1, 2)).mean() > 0.2  # what the maps would hold
    assert (found == WINNING).any((1, 2)).mean() < LIMIT


@pytest.mark.parametrize("picture", PICTURES)
def test_hardly_any_map_holds_a_false_verdict(picture):
    """Or, beside true ones of its kind, hardly any of the verdicts is false."""
    _, found = made_up(picture)
    for verdict, false in false_verdicts(PICTURES[picture], 8, MARGIN).items():
        said = found == verdict
        wrong = (said & false).sum((1, 2))
        of = said.sum((1, 2)).clip(1) if (said & ~false).any() else wrong.clip(1)
        assert (wrong / of).mean() < LIMIT, verdict


def test_true_verdicts_are_found():
    """Five replicates show nearly every win by 3 points, and nearly every lack of one."""
    assert (made_up("g")[1][:, :4] == WINNING).mean() > 0.95
    assert (made_up("d")[1] == NO_BETTER).mean() > 0.8


def test_only_a_collapse_that_was_seen_can_be_held_against_a_ticket():
    """A ticket that falls by 10 points in 15 % of its runs lies beyond the margin on average."""
    results, found = made_up("d", collapse=0.15)
    ticket = results.test_accuracy.sel(arm="ticket").transpose("map", "replicate", ...).values
    seen = (ticket < 85).any(1)
    matches = np.isin(found, [WINNING, MATCHING, NO_BETTER])
    assert not matches[seen].any()
    assert matches[~seen].mean() > 0.9


def test_maps_are_judged_each_for_itself():
    results, found = made_up("a")
    for i in (0, 7):
        assert (judged(results.isel(map=[i]), MARGIN)[0] == found[i]).all()
