"""The folder of an exported ticket: its weights, `config.json` and a card for people.

ticket.safetensors            sparse, as kept tickets are (docs/tickets.md)
ticket.rewound.safetensors    what it was trained from, under its mask, where that was kept
model.safetensors             in their place where it is asked for dense, under timm's names if it
                              has them
model.onnx                    in their place where it is asked for ONNX, which may be compacted
config.json                   what a program wants to know: network, input, classes, preprocessing
README.md                     what a person wants to know
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lthdask.errors import InputError
from lthdask.export.card import card
from lthdask.export.choice import Asked, chosen
from lthdask.export.compact import compacted
from lthdask.export.names import as_timm, timm_name
from lthdask.export.onnx_file import as_onnx
from lthdask.networks.build import Network
from lthdask.own import allow, is_own
from lthdask.storage import ticket_file
from lthdask.storage.files import write_whole
from lthdask.storage.folder import Folder
from lthdask.storage.loading import load_ticket
from lthdask.storage.ticket_file import About, write, write_dense
from lthdask.storage.tickets import Tickets

Dtype = Literal["fp32", "fp16", "bf16"]
DTYPES: dict[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
Form = Literal["sparse", "dense", "onnx", "onnx-sparse"]
FILES: dict[Form, str] = {
    "sparse": "ticket.safetensors",
    "dense": "model.safetensors",
    "onnx": "model.onnx",
    "onnx-sparse": "model.onnx",
}
"""Form → the file of the weights."""
REWOUND = FILES["sparse"].replace(ticket_file.SUFFIX, ticket_file.REWOUND)
ALL = (*dict.fromkeys(FILES.values()), REWOUND, "config.json", "README.md")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    cell : str
    size, dense_size : int
        Bytes of its weights' file, and of the same as a dense one in float32.
    """

    cell: str
    size: int
    dense_size: int


def export(
    run: Path,
    output: Path,
    asked: Asked,
    dtype: Dtype = "fp32",
    form: Form = "sparse",
    compact: bool = False,
    code: Iterable[Path] = (),
) -> Exported:
    """Write a kept ticket of a run into a folder of its own.

    Parameters
    ----------
    run : Path
        Folder of the study.
    output : Path
        Folder to write; new, empty, or of an earlier export.
    asked : Asked
        Which cell.
    dtype : {"fp32", "fp16", "bf16"}
        What weights and batch norm are rounded to; fp32 keeps their bits.
    form : {"sparse", "dense", "onnx", "onnx-sparse"}
        The last has sparse initializers.
    compact : bool
        Whether ONNX is written of the compacted network (:mod:`lthdask.export.compact`).
    code : iterable of path
        Files whose functions the study names.

    Raises
    ------
    InputError
        If there is no such ticket, its file is damaged or another one's, fp16 cannot hold its
        weights, the network cannot be compacted, or the folder cannot be written.
    """
    is_onnx = form.startswith("onnx")
    if is_onnx and dtype != "fp32":
        raise InputError(f"ONNX is written in fp32; got {dtype}")
    if compact and not is_onnx:
        raise InputError("what is compacted is written as ONNX; take the format onnx")
    for file in code:
        allow(file)
    cell, results = chosen(run, asked)
    kept = Tickets(Folder(run))
    ticket, about = kept.read(cell)
    rewound = kept.read_rewound(cell, ticket.mask) if form == "sparse" else None
    _require_ours(output)
    weights, before = (_rounded(of, dtype) for of in (ticket.origin.weights, rewound or {}))
    whole = sum(4 * of.numel() if of.is_floating_point() else of.nbytes for of in weights.values())
    about |= {"dtype": dtype, "density": _density(ticket.mask), "compact": compact}
    network = Network(**about["network"])
    timm = None if is_own(network.name) else timm_name(network)
    content = _onnx(kept.trained(cell), code, compact, form == "onnx-sparse") if is_onnx else b""
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = output / FILES[form]
        if is_onnx:
            write_whole(file, content)
        elif form == "sparse":
            write(file, weights, ticket.mask, about)
            if before:
                write(output / REWOUND, before, ticket.mask, about, places=False)
        else:
            write_dense(file, as_timm(network, weights) if timm else weights)
        for other in {*FILES.values(), REWOUND} - {file.name, *([REWOUND] if before else [])}:
            (output / other).unlink(missing_ok=True)
        done = Exported(str(cell), file.stat().st_size, whole)
        config = _config(about, form, timm)
        write_whole(output / "config.json", json.dumps(config, indent=2).encode())
        text = card(results, cell, about, form, timm, done.size / whole, bool(before))
        write_whole(output / "README.md", text.encode())
    except OSError as error:
        raise InputError(
            f"cannot write {output}: {error.strerror}; choose another folder"
        ) from None
    return done


def _onnx(kept: Path, code: Iterable[Path], compact: bool, sparse: bool) -> bytes:
    ticket = load_ticket(kept, code)
    network, shape = ticket.network, ticket.about["input"]
    return as_onnx(compacted(network, shape) if compact else network, shape, sparse)


def _rounded(weights: Mapping[str, Tensor], dtype: Dtype) -> dict[str, Tensor]:
    rounded = dict[str, Tensor]()
    for name, values in weights.items():
        rounded[name] = values.to(DTYPES[dtype]) if values.is_floating_point() else values
        if not torch.equal(rounded[name].isfinite(), values.isfinite()):
            raise InputError(f"{name} has values beyond what fp16 can hold; take bf16")
    return rounded


def _density(mask: Any) -> float:
    whole = sum(kept.numel() for kept in mask.values())
    return sum(int(kept.sum()) for kept in mask.values()) / whole if whole else 1.0


def _config(about: About, form: Form, timm: str | None) -> dict[str, Any]:
    """Return what a program wants to know; timm reads its part where the names are timm's."""
    names = (
        "name",
        "cell",
        "network",
        "input",
        "classes",
        "preprocessing",
        "density",
        "dtype",
        "compact",
    )
    config = {name: about[name] for name in names}
    config |= {"metrics": about["metrics"], "versions": about["versions"]}
    if timm and form == "dense":
        config |= {"architecture": timm, "num_classes": about["classes"]}
        config["pretrained_cfg"] = _of_timm(about)
    return config


def _of_timm(about: About) -> dict[str, Any]:
    """Return what timm wants to know of inputs: theirs are shares, and ours have three channels."""
    is_timms = about["network"]["name"].startswith("timm/")
    count = about["input"][0] if is_timms else 3
    known: dict[str, Any] = {
        "input_size": [count, *about["input"][1:]],
        "num_classes": about["classes"],
        "crop_pct": 1.0,
    }
    if not is_timms:
        known |= {"first_conv": "conv_stem", "classifier": "classifier"}
    for name in ("mean", "std"):
        if of := about["preprocessing"].get(name):
            channels = [value / 255 for ((value,),) in of]
            known[name] = channels * (count // len(channels))
    return known


def _require_ours(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is no folder; choose another for the export")
    if output.exists() and (other := [f.name for f in output.iterdir() if f.name not in ALL]):
        raise InputError(
            f"{output} holds other files than those of an export, such as {min(other)}; choose "
            f"another folder"
        )
