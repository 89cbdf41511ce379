"""The texts of the page, as HTML."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from lthdask.report.page.forecast import Forecast
from lthdask.report.page.source import Look
from lthdask.report.progress import duration
from lthdask.storage.schema import Status

COLOURS = {
    Status.DONE: "#4a7a9c",
    Status.DIVERGED: "#b35806",
    Status.FAILED: "#303030",
}
"""Of the parts of the bar."""
MOST_ROWS = 12
STYLE = """
:host { font: 13px/1.5 system-ui, sans-serif; color: #202020; }
:host > div { width: 100%; }
h1 { font-size: 17px; margin: 0 0 2px; }
h2 { font-size: 13px; margin: 0 0 4px; }
p { margin: 0 0 4px; }
.bar { display: flex; height: 10px; margin: 6px 0; background: #e4e4e4; }
.faint { color: #595959; }
table { border-collapse: collapse; }
th { font-weight: normal; color: #595959; text-align: left; }
th, td { padding: 1px 14px 1px 0; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; }
"""


def heading(name: str, look: Look) -> str:
    """Return how far a study is."""
    title = f"<h1>{escape(name)}</h1>"
    if look.forecast is None:
        return f'{title}<p role="status">{escape(_nothing_yet(look))}</p>'
    of = look.forecast
    told = (", ".join(_counts(of, look)), *_pace(of, bool(look.running)), _who(look))
    return f"{title}{_bar(of)}<p>{escape(' · '.join(told))}</p>"


def _nothing_yet(look: Look) -> str:
    return "The study is being prepared." if look.driver else look.problem or "Reading the study."


def _bar(of: Forecast) -> str:
    parts = "".join(
        f'<span style="width:{100 * of.counts.get(status, 0) / max(of.cells, 1):.3f}%;'
        f'background:{colour}"></span>'
        for status, colour in COLOURS.items()
    )
    said = f'aria-label="cells that have ended" aria-valuenow="{of.ended}" aria-valuemin="0"'
    return f'<div class="bar" role="progressbar" {said} aria-valuemax="{of.cells}">{parts}</div>'


def _counts(of: Forecast, look: Look) -> list[str]:
    counts = [f"{of.counts[Status.DONE]:,} of {of.cells:,} cells done"]
    cells = sum(not name.startswith("dense-r") for name in look.running)
    counts += [f"{cells} running"] if cells else []
    dense = len(look.running) - cells
    counts += [f"{dense} dense run{'s' * (dense != 1)} running"] if dense else []
    for status in (Status.DIVERGED, Status.FAILED, Status.SKIPPED):
        if number := of.counts.get(status):
            counts.append(f"{number} {status.name.lower()}")
    return counts


def _pace(of: Forecast, running: bool) -> list[str]:
    told = [f"{of.epochs_done:,.0f} of {of.epochs:,.0f} epochs"]
    if running and not of.left:
        told.append("the pace is known once a cell is done")
    if of.rate:
        told.append(f"{of.rate:.2g} epochs/s")
    if of.left:
        expected, low, high = of.left
        told.append(
            f"{duration(expected)} left" + (f" ({_range(low, high)})" if low == low else "")
        )
    return told


def _range(low: float, high: float) -> str:
    low_text, high_text = duration(low), duration(high)
    return f"{low_text} to {high_text}" if low_text != high_text else low_text


def _who(look: Look) -> str:
    return f"run by {look.driver}" if look.driver else "nobody runs it now"


def cell(at: Mapping[str, Any]) -> str:
    """Return what is known of the chosen cell, for those who do not use a pointer."""
    return f'<p role="status">{escape(about(at))}</p>'


def about(at: Mapping[str, Any]) -> str:
    """Return what is known of a cell, in a line."""
    told = [f"threshold {at['threshold_text']}, k={at['k']}: {at['outcome']}"]
    told += [f"test accuracy {at['accuracy']}"] if at["accuracy"] else []
    told += [f"{at['text']} points from the dense run"] if at["text"] else []
    told += [f"density {at['density']}"] if at["density"] else []
    told += [at["verdict"]] if at["verdict"] else []
    told += [f"on {at['place']}"] if at["place"] else []
    return " · ".join(told)


def failures(look: Look) -> str:
    """Return what failed, and why; empty if nothing has."""
    if not look.why:
        return ""
    rows = [
        f"<tr><td>{escape(names[0])}{_more(names)}</td><td><pre>{escape(reason)}</pre></td></tr>"
        for reason, names in list(look.why.items())[:MOST_ROWS]
    ]
    left_out = len(look.why) - len(rows)
    more = f'<p class="faint">and {left_out} more reasons</p>' if left_out else ""
    return f"<h2>What failed, and why</h2><table>{''.join(rows)}</table>{more}"


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def running(look: Look, now: float) -> str:
    """Return what is trained now, and where."""
    if not look.running:
        return ""
    rows = [
        (name, str(run.get("place", "")), duration(max(0.0, now - run["started"])))
        for name, run in look.running.items()
    ]
    return _table("Running", ("run", "place", "for"), rows)


def workers(crew: Sequence[Mapping[str, Any]]) -> str:
    """Return the workers, their memory, and what they do."""
    rows = [
        (str(w["name"]), str(w["host"]), f"{w['memory'] / 2**30:.1f} GiB", ", ".join(w["runs"]))
        for w in sorted(crew, key=lambda w: str(w["name"]))
    ]
    return _table("Workers", ("worker", "host", "memory", "trains"), rows)


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    every = list(rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>"
        for row in every[:MOST_ROWS]
    )
    more = (
        f'<p class="faint">and {len(every) - MOST_ROWS} more</p>' if len(every) > MOST_ROWS else ""
    )
    return f"<h2>{title}</h2><table><tr>{head}</tr>{body}</table>{more}"
