"""The card of an exported ticket: what it is, how good, how it was found, how it is loaded."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lthdask.arms import ARMS
from lthdask.grid import Cell
from lthdask.networks.build import Network
from lthdask.networks.zoo import is_of_zoo, told
from lthdask.own import file_of, is_own, plain
from lthdask.report.methods.text import methods
from lthdask.report.paired import Means, difference_to_dense, one_image
from lthdask.report.summary import points
from lthdask.report.verdict import verdicts
from lthdask.rewinding import number
from lthdask.source import in_words, meaning
from lthdask.storage.schema import Status

HEAD = """\
---
{library}pipeline_tag: image-classification
tags: [lottery-ticket, pruning, sparsity]
metrics: [accuracy]
---"""
LOAD_SPARSE = """\
import lthdask, torch

ticket = lthdask.load_ticket("ticket.safetensors")
network = ticket.network  # a plain torch.nn.Module; ticket.mask says what survives
{inputs}

To train on, `lthdask.hold(optimizer, network, ticket.mask)` keeps the zeros. The file is plain
safetensors: twenty lines of lthdask's documentation ("Keeping tickets") read it without lthdask."""
REWOUND = """\
`ticket.rewound.safetensors` has the weights that it was trained from: `ticket.rewound`, if it lies
beside the other. `lthdask run --ticket ticket.safetensors` trains from both on other data."""
LOAD_DENSE = """\
import safetensors.torch, torch
{made}
network.load_state_dict(safetensors.torch.load_file("model.safetensors"))
network.eval()
{inputs}"""
MADE = {
    "timm": """\
import timm

network = timm.create_model({named}, num_classes={classes}{more})""",
    "torchvision": """\
import torchvision

network = torchvision.models.get_model({named}, num_classes={classes}{more})""",
    "lthdask": """\
from lthdask.networks.build import Network, build

network = build({settings}, {shape}, {classes})""",
    "own": """\
import {module}  # the file of one's own that the run was given

network = {module}.{function}({shape}, {classes})""",
}
"""Who has the network → code that makes it."""
LOAD_ONNX = """\
import onnxruntime, torch

network = onnxruntime.InferenceSession("model.onnx")
{inputs}"""


def card(
    results: xr.Dataset,
    cell: Cell,
    about: Mapping[str, Any],
    form: str,
    timm: str | None,
    share: float,
    rewound: bool,
) -> str:
    """Return the card, in Markdown.

    Parameters
    ----------
    results : Dataset
        Of the study.
    cell : Cell
    about : mapping
        What the file says of the ticket.
    form : {"sparse", "dense", "onnx", "onnx-sparse"}
    timm : str or None
        What timm calls the network.
    share : float
        Size of the file, as a share of the dense one's.
    rewound : bool
        Whether what it was trained from lies beside it.
    """
    network, data = (plain(of["name"]) for of in (about["network"], about["study"]["data"]))
    kept = f"{100 * about['density']:.3g} %"
    parts = [
        HEAD.format(library="library_name: timm\n" if timm and form == "dense" else ""),
        f"# {network} with {kept} of its weights, on {data}",
        _what(cell, about, kept),
        "## Accuracy\n\n" + _accuracy(results, cell, about),
        "## Load\n\n" + _load(about, form, timm),
        *([REWOUND] if rewound else []),
        "## Size and speed\n\n" + _size(form, share, about["compact"]),
        "## How it was found\n\n" + methods(Path(results.encoding["source"]).parent).strip(),
    ]
    return "\n\n".join(parts) + "\n"


def _what(cell: Cell, about: Mapping[str, Any], kept: str) -> str:
    """Return what was trained, from which weights, and how much of it is left."""
    source = about["study"].get("source")
    is_here = ARMS[cell.arm].meaning
    if source:
        is_here = f"{meaning(cell.arm)}, trained for all T epochs"
    said = [f"`{cell}` of the study `{about['study']['name']}`: {is_here}."]
    if source:
        words = in_words(source)
        said.append(f"{words[0].upper()}{words[1:]}.")
    if about["density"] < 1:
        said.append(f"Of the prunable weights, {kept} are left; the others are exactly zero.")
    return " ".join(said)


def _accuracy(results: xr.Dataset, cell: Cell, about: Mapping[str, Any]) -> str:
    """Return what was measured of this network, and of its cell in all replicates."""
    at = {"arm": cell.arm, "threshold": cell.threshold, "rewind_epoch": number(cell.rewind_epoch)}
    done = results.status == int(Status.DONE)
    least = one_image(results)
    means = Means.over_replicates(results.test_accuracy, done, least).interval(0.05).sel(at)
    minus = Means.over_replicates(difference_to_dense(results), done, least)
    count = int(minus.count.sel(at))
    dense = results.dense_test_accuracy
    rows = [
        ("this network", f"{100 * about['metrics']['test_accuracy']:.2f}"),
        (
            f"the dense network of replicate {cell.replicate}",
            f"{float(dense.sel(replicate=cell.replicate)):.2f}",
        ),
    ]
    if count > 1:
        rows += [
            (f"mean of {count} replicates", _with_interval(means)),
            ("less the dense network, points", _with_interval(minus.interval(0.05).sel(at))),
        ]
    table = "| | test accuracy, % |\n|---|---|\n" + "\n".join(f"| {a} | {b} |" for a, b in rows)
    said = [
        "Intervals are of 95 %, by Student's t."
        if count > 1
        else "There is one replicate: this is one draw, and has no interval."
    ]
    if cell.arm == "ticket":
        judged = verdicts(results).verdict.sel({n: at[n] for n in ("threshold", "rewind_epoch")})
        margin = 100 * about["study"]["matching_margin"]
        said.append(
            f"The verdict on this cell is: **{judged.item()}**, at a margin of {points(margin)}."
        )
    if about["dtype"] != "fp32":
        said.append(
            f"Measured in float32; the weights were rounded to {about['dtype']} after that."
        )
    return f"{table}\n\n{' '.join(said)}"


def _with_interval(interval: xr.DataArray) -> str:
    low, high = np.asarray(interval, float)
    return f"{(low + high) / 2:.2f} ± {(high - low) / 2:.2f}".replace("-", "−")


def _size(form: str, share: float, compact: bool) -> str:
    size = f"The weights have {100 * share:.3g} % of the bytes of a dense file in float32."
    if compact:
        return (
            f"{size} Batch norm is folded, and channels that do nothing are gone: the outputs are "
            f"those of the ticket, but for rounding. It cannot be trained on."
        )
    if form == "dense":
        size = "All weights are in the file, zeros included."
    return f"{size} Zeros alone make no network faster: the multiply-adds are the dense one's."


def _load(about: Mapping[str, Any], form: str, timm: str | None) -> str:
    """Return the code that loads it, and shows it images."""
    text = LOAD_SPARSE if form == "sparse" else LOAD_DENSE if form == "dense" else LOAD_ONNX
    known, shown = about["preprocessing"], "(images.float() - mean) / std"
    values = f"torch.tensor({known.get('mean')}), torch.tensor({known.get('std')})"
    if known.get("normalisation") == "image":
        values = (
            "images.float().mean((1, 2, 3), keepdim=True), images.float().std((1, 2, 3), "
            f"correction=0, keepdim=True).clamp(min={math.prod(about['input']) ** -0.5!r})"
        )
    name = about["network"]["name"]
    if form == "dense" and about["input"][0] == 1 and is_shown_thrice(name, timm):
        shown = f"({shown}).expand(-1, 3, -1, -1)"
    answer = f"network({shown})"
    if text is LOAD_ONNX:
        answer = f'network.run(None, {{"images": ({shown}).numpy()}})[0]'
    inputs = (
        f"# images: {tuple(about['input'])} each, as in the study's data: 0 to 255\n"
        f"mean, std = {values}\nlogits = {answer}\n```"
    )
    sparse = '("ticket.safetensors")'
    code = text.format(inputs=inputs, made=_made(about, timm) if form == "dense" else "")
    if is_own(name):
        code = code.replace(sparse, f'("ticket.safetensors", code=["{file_of(name)}"])')
    return "```python\n" + code


def is_shown_thrice(name: str, timm: str | None) -> bool:
    """Return whether a library's network has three channels where the study's images have one."""
    return name.startswith("torchvision/") or (timm is not None and not name.startswith("timm/"))


def _made(about: Mapping[str, Any], timm: str | None) -> str:
    """Return the code that makes the network of a dense file."""
    name, shape, classes = about["network"]["name"], tuple(about["input"]), about["classes"]
    if is_own(name):
        module, _, function = plain(name).partition(":")
        return MADE["own"].format(module=module, function=function, shape=shape, classes=classes)
    if timm or is_of_zoo(name):
        told_of = told(name, shape, classes) if is_of_zoo(name) else {}
        more = "".join(f", {key}={value}" for key, value in told_of.items())
        named = repr(timm or name.partition("/")[2]).replace("'", '"')
        return MADE["timm" if timm else "torchvision"].format(
            named=named, classes=classes, more=more
        )
    settings = Network(**about["network"])
    return MADE["lthdask"].format(settings=settings, shape=shape, classes=classes)
