"""A small study as it lies on disk, whose numbers can be worked out by hand."""

import torch

from lthdask.arms import ARMS
from lthdask.grid import Cell, is_applicable
from lthdask.lottery.ticket import Ticket
from lthdask.networks.build import build
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Extent, Status
from lthdask.storage.tickets import Tickets
from lthdask.study import Study
from lthdask.training.checkpoint import Checkpoint

LAYERS = ["1.weight", "3.weight", "5.weight"]
START = 1.7e9


def made_study(
    folder, arms=("ticket",), replicates=1, accuracy=None, status=None, sparse=0.9, **changes
):
    """Write a study of two thresholds, 0.5 and `sparse`, and two rewind epochs, 0 and 2, of three.

    Its dense runs have 95 %. `accuracy` gives that of a cell, a share; 95 % by default. `status`
    gives what became of a cell; done by default. The cells of a replicate follow each other on
    a worker of its own, and take 10 s each.
    """
    keys = {"thresholds": f"0.5,{sparse}", "rewind_epochs": "0,2", "arms": ",".join(arms)}
    keys |= {"replicates": str(replicates)}
    study = Study.read("mnist-lenet").changed(
        {f"grid.{key}": value for key, value in keys.items()} | {"recipe.epochs": "3"} | changes
    )
    axes, values = study.grid.axes(), study.to_dict()
    about = {"study": values, "steps": 10, "majority": 0.11, "versions": {"torch": "2.0"}}
    folder.mkdir(exist_ok=True)
    create_cube(folder / "results.zarr", Extent(axes, 3, LAYERS, steps=10), about)
    (folder / "study.yaml").write_text(study.to_yaml())
    cube = Cube(folder / "results.zarr")
    for replicate in range(replicates):
        cube.write_dense(replicate, curves(0.95))
    for arm in arms:
        for replicate in range(replicates):
            for place, (threshold, k) in enumerate([(0.5, 0), (0.5, 2), (sparse, 0), (sparse, 2)]):
                cell = Cell(arm, replicate, threshold, k)
                what = status(cell) if status else Status.DONE
                if not is_applicable(cell, axes, study.grid.narrowed):
                    cube.mark(cell, Status.NOT_APPLICABLE)
                elif what in (Status.DONE, Status.DIVERGED):
                    share = accuracy(cell) if accuracy else 0.95
                    _write(cube, cell, what, share, START + 10 * place)
                elif what != Status.PENDING:
                    cube.mark(cell, what)
    return folder


def made_ticket(folder, cell, about=(), scale=1.0):
    """Keep a ticket of random weights, of which every second one survives; return its file."""
    study, normal = Study.parse((folder / "study.yaml").read_text()), {"mean": [[[0.0]]]}
    shape, classes = (1, 28, 28), 10
    weights = build(study.network, shape, classes).state_dict()
    weights = {name: scale * weight for name, weight in weights.items()}
    mask = {
        name: (torch.arange(weights[name].numel()) % 2 == 0).view(weights[name].shape)
        for name in LAYERS
    }
    values = {"name": str(cell), "network": vars(study.network), "input": shape}
    values |= {"classes": classes, "preprocessing": normal | {"std": [[[255.0]]]}, "metrics": {}}
    tickets, start = Tickets(Folder(folder)), Checkpoint(0, weights)
    tickets.keep(cell, Ticket(start, mask, {}), start, values | dict(about))
    return tickets.trained(cell)


def curves(last, k=0):
    """Curves that rise by 10 points an epoch, to `last`."""
    names = ("test_accuracy", "validation_accuracy")
    return {
        epoch: dict.fromkeys(names, last - 0.1 * (3 - epoch)) | {"validation_loss": 1 / epoch}
        for epoch in range(k + 1, 4)
    }


def _write(cube, cell, status, accuracy, began):
    metrics = {"density": 1 - cell.threshold, "epochs_trained": 3 - cell.first_epoch}
    if status == Status.DONE:
        metrics |= {
            "test_accuracy": accuracy,
            "validation_accuracy": accuracy,
            "early_stop_iteration": 10 * (3 - cell.first_epoch),
            "early_stop_test_accuracy": accuracy,
        }
        if ARMS[cell.arm].reordered:
            metrics["barrier"] = 0.02
    layers = {name: {"density": 1 - cell.threshold, "dead_channels": 1.0} for name in LAYERS}
    record = {"seconds": 10.0, "attempts": 1, "started": began, "ended": began + 10}
    done = curves(accuracy, cell.first_epoch)
    cube.write(cell, status, metrics, done, layers, record, f"node{cell.replicate} cpu")
