"""What kept tickets are worth on this machine: size, multiply-adds, and the time of a batch.

Each is measured as it is, with its zeros, and compacted (:mod:`lthdask.export.compact`), beside the
dense network. Only what gives the same outputs is timed, in turns, on the CPU.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lthdask.errors import InputError
from lthdask.export.choice import Asked
from lthdask.export.compact import compacted
from lthdask.export.onnx_file import as_onnx
from lthdask.export.outputs import agree
from lthdask.grid import Cell
from lthdask.lottery.size import multiply_adds
from lthdask.networks.build import Network, Shape, build
from lthdask.report.selection import select
from lthdask.rewinding import on_axis
from lthdask.storage.folder import Folder
from lthdask.storage.loading import load_ticket
from lthdask.storage.results import open_results
from lthdask.storage.tickets import Tickets

BATCHES = (1, 32)
ROUNDS = 15
AT_LEAST = 0.02
"""Seconds that are timed at once."""
DENSE, ZEROS, COMPACTED = "dense", "with zeros", "compacted"
Run = Callable[[Tensor], NDArray[np.float32]]
Load = Callable[[nn.Module, Path, int], Run]
"""Of a network, its ONNX file and a number of threads."""


@dataclass(frozen=True)
class Measured:
    """A network, and what it takes.

    Attributes
    ----------
    density : float
        Share of the prunable weights that survive.
    form : {"dense", "with zeros", "compacted"}
    shape : tuple of int
        Of one input.
    parameters : int
        Those that are not pruned.
    multiply_adds : int
        That one image takes; those by zero count, as they are computed.
    size : int
        Bytes: of the kept ticket's file; else of the weights.
    seconds : mapping of (str, int) to float
        Runtime and size of a batch → the least that a batch took.
    """

    density: float
    form: str
    shape: Shape
    parameters: int
    multiply_adds: int
    size: int
    seconds: Mapping[tuple[str, int], float] = field(default_factory=dict)


def kept_row(run: Path, asked: Asked) -> list[Cell]:
    """Return the cells of one arm, rewind epoch and replicate that were kept, densest first.

    Where rewind epoch or replicate are not asked for, they are those of which most were kept.

    Raises
    ------
    InputError
        If none was kept.
    """
    results, tickets = open_results(run), Tickets(Folder(run))
    given = {
        name: value
        for name in ("threshold", "rewind_epoch", "replicate")
        if (value := getattr(asked, name)) is not None
    }
    at, units = select(results, arm=asked.arm, **given), results.rewind_epoch.attrs.get("units", "")
    kept = [
        cell
        for replicate in np.atleast_1d(at.replicate.values)
        for k in np.atleast_1d(at.rewind_epoch.values)
        for threshold in sorted(np.atleast_1d(at.threshold.values))
        if tickets.are_there(
            cell := Cell(asked.arm, int(replicate), float(threshold), on_axis(float(k), units))
        )
    ]
    if not kept:
        raise InputError(
            f"no {asked.arm} of {run} was kept there; the command of the run trains them again in "
            f"the same bits, and keeps them, with `keep` all"
        )
    most = Counter((cell.replicate, cell.rewind_epoch) for cell in kept).most_common(1)[0][0]
    return [cell for cell in kept if (cell.replicate, cell.rewind_epoch) == most]


def latency(
    run: Path, cells: Sequence[Cell], threads: int = 1, code: Iterable[Path] = ()
) -> tuple[list[Measured], list[str]]:
    """Measure kept tickets of one study, and the dense network.

    Parameters
    ----------
    run : Path
        Folder of the study.
    cells : sequence of Cell
        Whose tickets were kept.
    threads : int
        Of each runtime.
    code : iterable of path
        Files whose functions the study names.

    Returns
    -------
    tuple of (list of Measured, list of str)
        The dense network, then each ticket as it is and compacted; and sentences on what could not
        be measured.

    Raises
    ------
    InputError
        If a ticket cannot be read, or a runtime computes something else than PyTorch.
    """
    notes = list[str]()
    found = [*_networks([Tickets(Folder(run)).trained(cell) for cell in cells], code, notes)]
    measured, networks = [of for of, _ in found], [network for _, network in found]
    shape = found[0][0].shape
    runtimes = _runtimes(notes)
    with _threads(threads), TemporaryDirectory() as place:
        files = [Path(place, f"{i}.onnx") for i in range(len(found))]
        if len(runtimes) > 1:
            for network, file in zip(networks, files, strict=True):
                file.write_bytes(as_onnx(network, shape))
        seconds: list[dict[tuple[str, int], float]] = [{} for _ in found]
        for runtime, load in runtimes.items():
            runs = [load(network, f, threads) for network, f in zip(networks, files, strict=True)]
            for batch in BATCHES:
                images = torch.randn(batch, *shape)
                _require_same(runtime, runs, networks, images)
                for took, least in zip(seconds, _least(runs, images), strict=True):
                    took[runtime, batch] = least
    rows = [replace(of, seconds=took) for of, took in zip(measured, seconds, strict=True)]
    return rows, list(dict.fromkeys(notes))


def _networks(
    files: Sequence[Path], code: Iterable[Path], notes: list[str]
) -> Iterator[tuple[Measured, nn.Module]]:
    """Yield the dense network, as it is initialised, and each ticket twice."""
    for file in files:
        ticket = load_ticket(file, code)
        about = ticket.about
        shape = tuple(about["input"])
        if file == files[0]:
            with torch.random.fork_rng(devices=[]):
                dense = build(Network(**about["network"]), shape, about["classes"]).eval()
            yield _sized(dense, DENSE, 1.0, shape), dense
        gone = sum(int((~kept).sum()) for kept in ticket.mask.values())
        sizes = {"pruned": gone, "size": file.stat().st_size}
        yield _sized(ticket.network, ZEROS, ticket.density, shape, **sizes), ticket.network
        try:
            small = compacted(ticket.network, shape)
        except InputError as error:
            notes.append(str(error))
        else:
            yield _sized(small, COMPACTED, ticket.density, shape), small


def _sized(
    network: nn.Module, form: str, density: float, shape: Shape, pruned: int = 0, size: int = 0
) -> Measured:
    count = sum(weight.numel() for weight in network.parameters()) - pruned
    size = size or sum(weight.nbytes for weight in network.state_dict().values())
    return Measured(density, form, shape, count, multiply_adds(network, shape), size)


def _runtimes(notes: list[str]) -> dict[str, Load]:
    """Return what is installed, and note what is not."""
    found: dict[str, Load] = {"torch": _torch}
    if not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        notes.append("ONNX Runtime was not measured; it comes with pip install 'lthdask[export]'")
        return found
    found["ONNX Runtime"] = _onnx_runtime
    if find_spec("openvino"):
        found["OpenVINO"] = _openvino
    else:
        notes.append("OpenVINO was not measured; it comes with pip install openvino")
    return found


def _require_same(
    runtime: str, runs: Sequence[Run], networks: Sequence[nn.Module], images: Tensor
) -> None:
    for run, network in zip(runs, networks, strict=True):
        with torch.no_grad():
            wanted = network(images).numpy()
        if not agree(run(images), wanted):
            raise InputError(f"{runtime} computes something else than PyTorch from this network")


def _least(runs: Sequence[Run], images: Tensor) -> list[float]:
    """Return the least seconds of each for a batch, in rounds of all in turn."""
    times = [max(1, round(AT_LEAST / _timed(run, images, 1))) for run in runs]
    rounds = [
        [_timed(run, images, count) for run, count in zip(runs, times, strict=True)]
        for _ in range(ROUNDS)
    ]
    found: list[float] = np.min(rounds, axis=0).tolist()
    return found


def _timed(run: Run, images: Tensor, times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        run(images)
    return (time.perf_counter() - began) / times


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _torch(network: nn.Module, file: Path, threads: int) -> Run:
    def run(images: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(network(images))

    return run


def _onnx_runtime(network: nn.Module, file: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> NDArray[np.float32]:
        (found,) = session.run(None, {"images": images.numpy()})
        return np.asarray(found)

    return run


def _openvino(network: nn.Module, file: Path, threads: int) -> Run:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    settings["PERFORMANCE_HINT"] = "LATENCY"
    model = openvino.Core().compile_model(file, "CPU", settings)
    return lambda images: np.asarray(model(images.numpy())[0])
