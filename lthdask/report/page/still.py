"""The grid as it is now, as plain HTML without a script, which any notebook shows."""

from collections.abc import Iterable
from html import escape
from typing import Any

from lthdask.report.figures.style import named
from lthdask.report.page import words
from lthdask.report.page.source import Source

MARKS = {"pending": "·", "running": "▸", "failed": "×", "diverged": "△", "skipped": "–"}
"""What stands in a cell that has no difference to dense."""
MOST_NUMBERS = 14
"""Rewind epochs up to which there is room for numbers."""
STYLE = f"""
.lthdask {{
  background: #ffffff; padding: 4px 8px;
  {words.STYLE.replace(":host > div", "& > div").replace(":host", "&")}
  table {{ font: inherit; }}
  table, caption, tr, th {{ background: none !important; }}  /* also where a notebook is dark */
  table, caption {{ color: inherit !important; }}
  table.map {{ display: inline-table; margin: 6px 24px 6px 0; }}
  table.map caption {{ text-align: left; font-weight: bold; }}
  table.map td {{ border: 1px solid #d0d0d0; padding: 2px 5px; text-align: center; }}
}}
"""


def still(name: str, source: Source, note: str = "") -> str:
    """Return how far a study is, with a map of each arm.

    Parameters
    ----------
    name : str
        Of the study.
    source : Source
        Its folder.
    note : str
        A sentence to show below.
    """
    look = source.look()
    arms = [] if look.results is None else look.results.arm.values.tolist()
    maps = "".join(_map(arm, source.columns(arm, None)) for arm in arms)
    legend = ", ".join(f"{mark} {state}" for state, mark in MARKS.items() if f">{mark}<" in maps)
    maps += f'<p class="faint">{legend}</p>' if legend else ""
    below = f'<p role="status">{escape(note)}</p>' if note else ""
    told = f"{words.heading(name, look)}{maps}{below}{words.failures(look)}"
    return f'<div class="lthdask"><style>{STYLE}</style>{told}</div>'


def _map(arm: str, columns: dict[str, list[Any]]) -> str:
    """Return the map of an arm: thresholds by rewind epochs."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for values in zip(*columns.values(), strict=True):
        at = dict(zip(columns, values, strict=True))
        rows.setdefault(at["row"], []).append(at)
    first = next(iter(rows.values()))
    numbers = len(first) <= MOST_NUMBERS
    head = _cells("th", ["threshold", *(f"k={at['k']}" if numbers else "" for at in first)])
    body = "".join(
        f"<tr>{_cells('th', [row[0]['threshold_text']])}"
        f"{''.join(_cell(at, numbers) for at in row)}{_cells('th', [row[0]['row_density']])}</tr>"
        for row in rows.values()
    )
    caption = f"{named(arm)} − dense, points of test accuracy"
    return (
        f'<table class="map"><caption>{escape(caption)}</caption>'
        f"<tr>{head}{_cells('th', ['density'])}</tr>{body}</table>"
    )


def _cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _cell(at: dict[str, Any], numbers: bool) -> str:
    text = at["text"] or MARKS.get(at["state"], "")
    style = f"background:{at['colour']};color:{at['ink']}"
    said = escape(words.about(at))
    return f'<td style="{style}" title="{said}">{escape(text) if numbers else ""}</td>'
