"""Masks, kept tickets, code of one's own and results folders, as others may give them."""

import json
import os
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

import lthdask
from lthdask import own
from lthdask.grid import Cell
from lthdask.lottery.trial import require_repeatable
from lthdask.study import Study
from tests.bad_inputs.trying import Bad, on_command_line
from tests.conftest import ENGINE, small_data
from tests.studies import made_study, made_ticket

SMALL = Study.read("digits").changed(
    {
        "network.name": "lenet_300_100",
        "data.image_size": 8,
        "recipe.epochs": 2,
        "recipe.batch_size": 8,
        "grid.rewind_epochs": 0,
        "grid.thresholds": 0.5,
    }
)


def _mask(
    value: float = 0.0, dtype: torch.dtype = torch.bool, **other: Tensor
) -> dict[str, Tensor]:
    """Return a mask of LeNet at 8×8 pixels, that prunes the first of its layers."""
    shapes = {"1.weight": (300, 192), "3.weight": (100, 300), "5.weight": (10, 100)}
    masks = {name: torch.ones(shape, dtype=dtype) for name, shape in shapes.items()}
    masks["3.weight"][:50] = value
    return masks | other


def _safe(tensors: dict[str, Tensor]) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(safetensors.torch.save(tensors))


def _torch(content: object) -> Callable[[Path], object]:
    return lambda file: torch.save(content, file)


def _text(content: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(content)


def _header(shape: list[int], dtype: str = "BOOL") -> bytes:
    head = json.dumps(
        {"3.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, 4]}}
    ).encode()
    return len(head).to_bytes(8, "little") + head + bytes(4)


class Other:
    """Something that a pickle may hold."""


MASKS: list[tuple[str, Callable[[Path], object], str | None]] = [
    ("as it should be", _safe(_mask()), None),
    ("of PyTorch", _torch(_mask()), None),
    ("of floats", _safe(_mask(dtype=torch.float32)), None),
    ("empty", _text(b""), "is no mask"),
    ("text", _text(b"hello"), "is no mask"),
    (
        "cut off",
        lambda file: file.write_bytes(safetensors.torch.save(_mask())[:5000]),
        "is no mask",
    ),
    ("a huge header", _text(b"\xff" * 8 + b"{"), "is no mask"),
    ("huge shapes", _text(_header([2**40, 2**20])), "is no mask"),
    ("an unknown dtype", _text(_header([4], "BOOM")), "is no mask"),
    ("a number", _torch(3), "is no mask"),
    ("a list", _torch([1, 2]), "is no mask"),
    ("a pickle of a class", _torch(Other()), "is no mask"),
    ("no tensors", _safe({}), "is no mask"),
    ("of other values", _safe(_mask(0.5, torch.float32)), "holds 0.5"),
    ("of NaN", _safe(_mask(float("nan"), torch.float32)), "holds nan"),
    ("of nothing pruned", _safe(_mask(1.0)), "prunes nothing"),
    (
        "of all pruned",
        _safe({n: torch.zeros_like(m) for n, m in _mask().items()}),
        "prunes everything",
    ),
    ("of another network", _safe({"conv.weight": _mask()["3.weight"]}), "of another network"),
    ("of other shapes", _safe(_mask() | {"3.weight": _mask()["3.weight"].T.contiguous()}), "shape"),
    (
        "of a layer less",
        _safe({k: v for k, v in _mask().items() if k != "5.weight"}),
        "lacks '5.weight'",
    ),
    ("of a layer more", _safe(_mask(more=torch.zeros(2, dtype=torch.bool))), "'more' is no weight"),
    ("sparse", _torch({"3.weight": torch.eye(3).to_sparse()}), "sparse"),
    ("without storage", _torch({"3.weight": torch.empty(3, device="meta")}), "is no mask"),
    ("a pipe", os.mkfifo, "is no mask"),
    ("a folder", Path.mkdir, "Is a directory"),
    ("a device", lambda file: file.symlink_to("/dev/zero"), "is no mask"),
    ("not there", lambda file: None, "No such file"),
    ("complex numbers", _torch({"3.weight": torch.ones(3, dtype=torch.complex64)}), "mask"),
]


def _read_mask(write: Callable[[Path], object], folder: Path) -> None:
    file = folder / "mine.mask"
    write(file)
    SMALL.changed({"pruning.masks": [str(file)]})


@cache
def _study() -> Path:
    """Return the folder of a study, made once."""
    return made_study(Path(mkdtemp()))


def _kept(folder: Path, **values: object) -> Path:
    """Return a kept ticket of which the file says something else."""
    place = shutil.copytree(_study(), folder / "study")
    return made_ticket(place, Cell("ticket", 0, 0.5, 0), values)


def _changed_ticket(change: Callable[[bytes], bytes], folder: Path) -> None:
    file = _kept(folder)
    file.write_bytes(change(file.read_bytes()))
    lthdask.load_ticket(file)


def _about(**values: object) -> Callable[[Path], object]:
    return lambda folder: lthdask.load_ticket(_kept(folder, **values))


TICKETS: list[tuple[str, Callable[[Path], object], str | None]] = [
    ("as it should be", partial(_changed_ticket, bytes), None),
    ("empty", partial(_changed_ticket, lambda of: b""), "is not a valid ticket"),
    ("cut off", partial(_changed_ticket, lambda of: of[: len(of) // 2]), "is not a valid ticket"),
    ("too long", partial(_changed_ticket, lambda of: of + b"x"), "is not a valid ticket"),
    (
        "a bit changed",
        partial(_changed_ticket, lambda of: of[:-9] + bytes([of[-9] ^ 1]) + of[-8:]),
        "damaged",
    ),
    (
        "a huge header",
        partial(_changed_ticket, lambda of: b"\xff" * 8 + of[8:]),
        "is not a valid ticket",
    ),
    (
        "without metadata",
        partial(_changed_ticket, lambda of: safetensors.torch.save({"a": torch.ones(2)})),
        "is not a valid ticket",
    ),
    ("text", partial(_changed_ticket, lambda of: b"hello"), "is not a valid ticket"),
    (
        "a mask",
        partial(_changed_ticket, lambda of: safetensors.torch.save(_mask())),
        "is not a valid ticket",
    ),
    ("of an unknown network", _about(network={"name": "resnet99"}), "unknown network 'resnet99'"),
    ("of no network", _about(network=None), "is not a valid ticket"),
    ("of another network", _about(network={"name": "resnet20"}), "does not fit"),
    ("of code that is not given", _about(network={"name": "mine:net@0123456789abcdef"}), "mine.py"),
    ("of a huge input", _about(input=[1, 2**20, 2**20]), "does not fit"),
    ("of an absurd input", _about(input=[1, 2**60, 2**60]), "ticket"),
    ("of no input", _about(input=[]), "ticket"),
    ("of a negative input", _about(input=[1, -28, 28]), "whole numbers"),
    ("of no classes", _about(classes=0), "whole numbers"),
    ("of a billion classes", _about(classes=10**9), "does not fit"),
]

HEAD = "import torch\nfrom torch import nn\n"
NET = "def f(shape, classes):\n    return "
FLAT = "nn.Sequential(nn.Flatten(), nn.Linear(64, classes))"
CODES: list[tuple[str, str, str, str | None]] = [
    ("a network", "network.name", NET + FLAT, None),
    ("a syntax error", "network.name", "def f(:", "SyntaxError"),
    ("an error", "network.name", "1 / 0", "ZeroDivisionError"),
    ("an exit", "network.name", "raise SystemExit(3)", "SystemExit"),
    ("a missing import", "network.name", "import nowhere_at_all", "No module named"),
    ("nothing", "network.name", "", "has no function 'f'"),
    ("no function", "network.name", "f = 3", "has no function 'f'"),
    ("a network that raises", "network.name", NET + "1 / 0", "division by zero"),
    ("a network that is None", "network.name", NET + "None", "NoneType"),
    ("a network of no layers", "network.name", NET + "nn.Flatten()", "nothing can be pruned"),
    (
        "a network of other shapes",
        "network.name",
        NET + "nn.Linear(3, classes)",
        "cannot be multiplied",
    ),
    (
        "a network of too few classes",
        "network.name",
        NET + FLAT.replace("classes", "2"),
        "a number for each class",
    ),
    (
        "a network of no parameters",
        "network.name",
        "def f(): return 3",
        "takes 0 positional arguments",
    ),
    (
        "dropout",
        "network.name",
        NET + FLAT.replace("nn.Flatten(), ", "nn.Flatten(), nn.Dropout(0.5), "),
        None,
    ),
    (
        "a network that returns a tuple",
        "network.name",
        "class N(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.a = nn.Linear(64, 10)\n    def forward(self, x):\n        return self.a(x.flatten(1)), 3\n"  # noqa: E501
        + NET
        + "N()",
        "got tuple",
    ),
    ("a score", "pruning.score", "def f(final):\n    return final.abs()", None),
    ("a score that raises", "pruning.score", "def f(final):\n    return 1 / 0", "division by zero"),
    (
        "a score of other shape",
        "pruning.score",
        "def f(final):\n    return final[:3]",
        "f must return",
    ),
    (
        "a score that is None",
        "pruning.score",
        "def f(final):\n    return None",
        "must return a tensor",
    ),
    (
        "a score of NaN",
        "pruning.score",
        "def f(final):\n    return final * float('nan')",
        "is not a number",
    ),
    (
        "a score of other parameters",
        "pruning.score",
        "def f(weights):\n    return weights",
        "the parameters of the score",
    ),
    ("a score of no parameters", "pruning.score", "def f():\n    return 3", "got none"),
    (
        "a schedule",
        "recipe.schedule.name",
        "def f(done, epochs):\n    return 1 - done / epochs",
        None,
    ),
    (
        "a schedule that raises",
        "recipe.schedule.name",
        "def f(done, epochs):\n    return 1 / 0",
        "division by zero",
    ),
    (
        "a schedule that is None",
        "recipe.schedule.name",
        "def f(done, epochs):\n    return None",
        "schedule",
    ),
    (
        "a schedule of text",
        "recipe.schedule.name",
        "def f(done, epochs):\n    return 'x'",
        "schedule",
    ),
    (
        "a negative schedule",
        "recipe.schedule.name",
        "def f(done, epochs):\n    return -1",
        "0 or more",
    ),
    (
        "a schedule of NaN",
        "recipe.schedule.name",
        "def f(done, epochs):\n    return float('nan')",
        "0 or more",
    ),
    (
        "an optimizer",
        "recipe.optimizer.name",
        "def f(p, rate, momentum, decay):\n    return torch.optim.SGD(p, rate)",
        None,
    ),
    (
        "an optimizer that is None",
        "recipe.optimizer.name",
        "def f(p, rate, momentum, decay):\n    return None",
        "must return a torch.optim.Optimizer",
    ),
    (
        "an optimizer of fewer weights",
        "recipe.optimizer.name",
        "def f(p, rate, momentum, decay):\n    return torch.optim.SGD(p[:1], rate)",
        "all parameters",
    ),
    (
        "an optimizer of another rate",
        "recipe.optimizer.name",
        "def f(p, rate, momentum, decay):\n    return torch.optim.SGD(p, 7.0)",
        "must have the rate",
    ),
    (
        "an arm that raises",
        "grid.arms",
        "def f(initial, final, rewound, mask, generator):\n    return 1 / 0",
        "f",
    ),
    (
        "an arm of other parameters",
        "grid.arms",
        "def f(x, y):\n    return x, y",
        "the parameters of the arm",
    ),
]


def _run_code(key: str, text: str, folder: Path) -> None:
    from lthdask.lottery.experiment import Experiment

    file = folder / "bad_code.py"
    file.write_text(HEAD + text)
    own.allow(file)
    name = "bad_code:f" if key != "grid.arms" else ["ticket", "bad_code:f"]
    study = SMALL.changed({key: name})
    experiment = Experiment(
        study.network,
        small_data(),
        study.recipe,
        study.pruning,
        0,
        ENGINE,
        **(
            {"own_arms": [arm for arm in study.grid.arms if own.is_own(arm)]}
            if key == "grid.arms"
            else {}
        ),
    )
    require_repeatable(experiment)


def _damaged(damage: Callable[[Path], object], command: str, folder: Path) -> None:
    place = shutil.copytree(_study(), folder / "study")
    damage(place)
    if command == "open":
        lthdask.open_results(place)
    else:
        on_command_line(command, str(place))


def _metadata(key: str, value: object) -> Callable[[Path], object]:
    def change(place: Path) -> None:
        file = place / "results.zarr" / "zarr.json"
        whole = json.loads(file.read_text())
        whole["attributes"][key] = value
        file.write_text(json.dumps(whole))

    return change


def _foreign(place: Path) -> None:
    import xarray as xr

    shutil.rmtree(place / "results.zarr")
    xr.Dataset({"a": ("x", np.arange(3))}).to_zarr(place / "results.zarr", consolidated=False)


RESULTS: list[tuple[str, Callable[[Path], object], str | None]] = [
    ("as they should be", lambda place: None, None),
    ("not there", lambda place: shutil.rmtree(place / "results.zarr"), "no results"),
    ("nothing", lambda place: [shutil.rmtree(place), place.mkdir()], "no "),
    (
        "a file",
        lambda place: [
            shutil.rmtree(place / "results.zarr"),
            (place / "results.zarr").write_text("x"),
        ],
        "results.zarr",
    ),
    (
        "an empty cube",
        lambda place: [shutil.rmtree(place / "results.zarr"), (place / "results.zarr").mkdir()],
        "results.zarr",
    ),
    ("of another program", _foreign, "results.zarr"),
    ("of a later format", _metadata("format", 99), "update lthdask"),
    ("of a format that is text", _metadata("format", "x"), "format"),
    (
        "metadata that are no JSON",
        lambda place: (place / "results.zarr/zarr.json").write_text("{"),
        "cannot be read",
    ),
    (
        "metadata that are a list",
        lambda place: (place / "results.zarr/zarr.json").write_text("[]"),
        "cannot be read",
    ),
]


def rows() -> list[Bad]:
    """Return every bad input of this kind."""
    return [
        *(Bad("mask file", n, partial(_read_mask, make), told) for n, make, told in MASKS),
        *(Bad("kept ticket", n, make, told) for n, make, told in TICKETS),
        *(Bad("own code", n, partial(_run_code, key, text), told) for n, key, text, told in CODES),
        *(
            Bad("results folder", f"{name}: {how}", partial(_damaged, make, how), told)
            for name, make, told in RESULTS
            for how in ("open", "status")
        ),
    ]
