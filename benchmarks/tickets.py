"""How large kept tickets are: uv run python benchmarks/tickets.py.

MobileNetV2 as it is initialised, under LAMP masks of these weights, beside the dense file and the
bound: the entropy of the mask in each layer, the surviving values, and everything else as it is.
"""

import math
import tempfile
from pathlib import Path

from lthdask.data.readers import load
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.ticket import Ticket
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.storage.tickets import Tickets
from lthdask.study import Study

DENSITIES = (0.15, 0.10, 0.05, 0.02, 0.01)


def main() -> None:
    study = Study.read("digits")
    experiment = Experiment(
        *(study.network, load(study.data), study.recipe, study.pruning, study.seed),
        study.engine.chosen(),
    )
    dense = next(runs.train_dense(experiment, 0))[0]
    with tempfile.TemporaryDirectory() as place:
        tickets = Tickets(Folder(Path(place)))
        tickets.path.mkdir()
        checkpoints.save(file := tickets.path / "dense", dense, complete=False)
        whole = file.stat().st_size
        print(f"dense {whole / 1e3:,.0f} KB")
        print("density   bound      KB   × bound   % of dense   rewound, KB")
        for density in DENSITIES:
            cell = Cell("ticket", 0, 1 - density, 0)
            ticket = drawing.ticket(experiment, dense, dense, 1 - density)
            about = {"study": study.to_dict()}
            tickets.keep(cell, Ticket(dense, ticket.mask, {}), dense, about)
            size, rewound = (
                file(cell).stat().st_size for file in (tickets.trained, tickets.rewound)
            )
            least = bound(dense.weights, ticket.mask)
            print(
                f"{density:7.2f} {least / 1e3:7,.0f} {size / 1e3:7,.0f} {size / least:9.2f} "
                f"{100 * size / whole:12.2f} {rewound / 1e3:13,.0f}"
            )


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
