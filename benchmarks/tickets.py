"""How large kept tickets are, beside other ways to write them.

uv run --with zstandard python benchmarks/tickets.py [RUN]

Of the row of tickets of which RUN kept most; without one, of MobileNetV2 as it is initialised,
under LAMP masks of these weights. The bound is the entropy of the mask in each layer, the surviving
values, and everything else as it is.
"""

import argparse
import io
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

import lthdask
from lthdask.data.readers import load
from lthdask.export.choice import Asked
from lthdask.export.compact import compacted
from lthdask.export.latency import kept_row
from lthdask.export.onnx_file import as_onnx
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.ticket import Ticket
from lthdask.storage.folder import Folder
from lthdask.storage.ticket_file import write
from lthdask.storage.tickets import Tickets
from lthdask.study import Study

try:
    import zstandard
except ImportError:
    zstandard = None

DENSITIES = (0.15, 0.10, 0.05, 0.02, 0.01)
ALL_OF_IT = "dense state_dict"
BOUND, FILE = "bound{}", "ticket.safetensors{}"
LEVELS = (3, 19)
"""Of zstd: that of its command by default, and the highest of the usual ones."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN")
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as place:
        files = of_run(run) if run else as_initialised(Path(place))
        tickets = [lthdask.load_ticket(file) for file in files]
        sizes = [dict(sizes_of(ticket, Path(place, "file"))) for ticket in tickets]
    onnx = len(as_onnx(tickets[0].network, tickets[0].about["input"]))  # of all densities
    print("| KB at a density of |", *(f"{ticket.density:.2f} |" for ticket in tickets))
    print("|---" * (len(tickets) + 1) + "|")
    for name in sizes[0]:
        print(f"| {name} |", *(f"{shown(name, of)} |" for of in sizes))
    print(f"dense ONNX: {onnx / 1e3:,.0f} KB", "" if zstandard else "; zstd needs zstandard")


def shown(name, sizes) -> str:
    """Return a size in KB; beside a bound, or as a share of the dense file."""
    for more in ("", ", 16 bits"):
        if name == FILE.format(more):
            bound, whole = sizes[BOUND.format(more)], sizes[ALL_OF_IT]
            times, share = sizes[name] / bound, 100 * sizes[name] / whole
            return f"{sizes[name] / 1e3:,.0f} ({times:.2f} × bound, {share:.1f} %)"
    return f"{sizes[name] / 1e3:,.0f}"


def sizes_of(ticket, file) -> Iterator[tuple[str, float]]:
    """Yield the bytes of each way to write a ticket."""
    weights, mask, shape = ticket.weights, ticket.mask, ticket.about["input"]
    halves = {n: of.half() if of.is_floating_point() else of for n, of in weights.items()}
    for more, values in (("", weights), (", 16 bits", halves)):
        yield BOUND.format(more), bound(values, mask)
        write(file, values, mask, ticket.about)
        yield FILE.format(more), file.stat().st_size
    if ticket.rewound:
        write(file, ticket.rewound, mask, ticket.about, places=False)
        yield "the same, rewound values alone", file.stat().st_size
    dense = saved(weights)
    yield ALL_OF_IT, len(dense)
    write(file, weights, mask, ticket.about)
    for name, content in ((ALL_OF_IT, dense), (FILE.format(""), file.read_bytes())):
        for level in LEVELS if zstandard else ():
            compressed = zstandard.ZstdCompressor(level).compress(content)
            yield f"{name} under zstd -{level}", len(compressed)
    for name, sparse in (("CSR", torch.Tensor.to_sparse_csr), ("COO", torch.Tensor.to_sparse)):
        those = {
            n: sparse(of.flatten(1) if name == "CSR" else of) for n, of in masked(weights, mask)
        }
        yield f"state_dict of {name} tensors", len(saved(weights | those))
    small = compacted(ticket.network, shape)
    yield "compacted, state_dict", len(saved(small.state_dict()))
    yield "compacted, ONNX", len(as_onnx(small, shape))
    yield "ONNX with sparse initializers", len(as_onnx(ticket.network, shape, sparse=True))


def masked(weights, mask):
    return ((name, weights[name]) for name in mask)


def saved(state) -> bytes:
    torch.save(state, content := io.BytesIO())
    return content.getvalue()


def of_run(run: Path) -> list[Path]:
    return [Tickets(Folder(run)).trained(cell) for cell in kept_row(run, Asked())]


def as_initialised(place: Path) -> list[Path]:
    study = Study.read("digits")
    data = load(study.data)
    experiment = Experiment(
        *(study.network, data, study.recipe, study.pruning, study.seed), study.engine.chosen()
    )
    about = {"network": vars(study.network), "input": data.shape, "classes": data.classes}
    dense = next(runs.train_dense(experiment, 0))[0]
    tickets, files = Tickets(Folder(place)), []
    for density in DENSITIES:
        cell = Cell("ticket", 0, 1 - density, 0)
        mask = drawing.ticket(experiment, dense, dense, 1 - density).mask
        tickets.keep(cell, Ticket(dense, mask, {}), dense, about | {"study": study.to_dict()})
        files.append(tickets.trained(cell))
    return files


def bound(weights, mask) -> float:
    """Return the fewest bytes that hold a mask whose layers have its densities, and the rest."""
    least = 0.0
    for name, tensor in weights.items():
        size, kept = tensor.numel(), int(mask[name].sum()) if name in mask else tensor.numel()
        share = kept / size
        entropy = -sum(p * math.log2(p) for p in (share, 1 - share) if p)
        least += kept * tensor.element_size() + size * entropy / 8
    return least


if __name__ == "__main__":
    main()
