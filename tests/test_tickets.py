"""What kept tickets promise: small files that hold exact bits, and nothing that is not a ticket."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import example, given

import lthdask
from lthdask.checks.folder import check, repair
from lthdask.data.readers import load
from lthdask.driver.keeping import drop_worse
from lthdask.driver.opening import open_study
from lthdask.driver.plan import plan
from lthdask.driver.remaining import remaining
from lthdask.errors import InputError
from lthdask.flow import run
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.ticket import Ticket
from lthdask.options import Options
from lthdask.storage import checkpoints, tickets
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.sparse import decoded, encoded
from lthdask.storage.tickets import Tickets
from lthdask.study import Study
from lthdask.training.checkpoint import Checkpoint
from lthdask.worker.cells import train_cells
from lthdask.worker.tasks import train_dense
from tests.studies import made_study
from tests.test_flow import TINY, attempts
from tests.test_tasks import CELLS, dense, fresh, here

KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
CELL = CELLS[3]  # threshold 0.9, k = 2
KEEP = {"keep": "all", "keep_rewound": True}


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8).tolist()


@given(
    st.lists(st.integers(0, 70), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5, 1.0]),
    st.sampled_from(KINDS),
    st.integers(0, 2**32 - 1),
)
@example([70, 70], 0.0, torch.float32, 0)
@example([3, 0], 1.0, torch.float32, 0)
def test_a_masked_tensor_comes_back_in_the_same_bits_and_zero_elsewhere(shape, density, kind, seed):
    shape = shape if np.prod(shape) < 10_000 else shape[:2]
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=random).to(kind)
    kept = torch.rand(shape, generator=random) < density
    written = encoded("w", values, kept)
    found, mask = decoded("w", written, shape)
    assert found.dtype == kind
    assert torch.equal(mask, kept)
    assert bits(found[kept]) == bits(values[kept])
    assert set(bits(found[~kept])) <= {0}
    (where,) = (tensor for name, tensor in written.items() if name != "w")
    assert len(where) <= -(-kept.numel() // 8)


@pytest.mark.parametrize(
    ("kept", "where", "expected"),
    [
        ([1, 0, 0, 1, 0, 0, 0, 0, 1], "bits", [0b1001, 1]),
        ([0] * 9, "gaps", []),
        ([0] * 300 + [1] + [0] * 600, "gaps", [255, 45, 255, 255]),
        ([0] * 254 + [1, 1] + [0] * 254, "gaps", [254, 0]),
        ([0] * 255 + [1] + [0] * 255, "gaps", [255, 0, 255]),
    ],
)
def test_places_are_written_as_the_smaller_of_bits_and_gaps(kept, where, expected):
    kept = torch.tensor(kept, dtype=torch.bool)
    written = encoded("w", torch.ones(len(kept)), kept)
    assert written.keys() == {"w", f"w.{where}"}
    assert written[f"w.{where}"].tolist() == expected


BYTE = torch.zeros(1, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("tensors", "size"),
    [
        ({"w": torch.zeros(1), "w.gaps": BYTE}, 10**15),  # would be a petabyte
        ({"w": torch.zeros(1), "w.gaps": BYTE}, 0),
        ({"w": torch.zeros(0), "w.gaps": torch.zeros(0, dtype=torch.uint8)}, 255),
        ({"w": torch.zeros(2), "w.gaps": BYTE}, 5),
        ({"w": torch.zeros(1), "w.bits": BYTE}, 8),
        ({"w": torch.zeros(0), "w.bits": BYTE}, 9),
        ({"w": torch.zeros(2), "w.bits": BYTE + 5}, 2),
        ({"w": torch.zeros(0), "w.bits": BYTE, "w.gaps": BYTE}, 8),
        ({"w": torch.zeros(0)}, 8),
        ({"w": torch.zeros(0), "w.bits": torch.zeros(1)}, 8),
        ({"w": torch.zeros(0), "w.bits": torch.zeros(1, 1, dtype=torch.uint8)}, 8),
        ({"w": torch.zeros(1, 1), "w.gaps": BYTE}, 5),
    ],
)
def test_places_that_do_not_fit_values_or_shape_are_refused(tensors, size):
    with pytest.raises(ValueError, match="w"):
        decoded("w", tensors, (size,))


def keeping(work, **options):
    return replace(work, options=replace(work.options, **options))


def train(work, cell, digests, events=None):
    needed = dense(work, cell, digests)
    return train_cells(work, [cell], here(events=events), *needed)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with nothing but a dense run, and its digests."""
    work = fresh(tmp_path_factory.mktemp("begun") / "run")
    return work, train_dense(work, 0, here())


@pytest.fixture(scope="module")
def kept(begun, tmp_path_factory):
    """The same with a cell that was trained and kept, and its digests."""
    work = copied(begun[0], tmp_path_factory.mktemp("kept") / "run")
    assert train(keeping(work, **KEEP), CELL, begun[1]) == ["done"]
    return work, begun[1]


def copied(work, path):
    shutil.copytree(work.folder.path, path)
    return replace(work, folder=Folder(path), driver=str(path))


def files_of(folder, *names):
    return {
        file.relative_to(folder): file.read_bytes()
        for name in names
        for file in folder.glob(name)
        if file.is_file()
    }


def test_a_kept_ticket_is_what_a_serial_loop_trains_bit_for_bit(kept):
    work, digests = kept
    file = Tickets(work.folder).trained(CELL)
    loaded = lthdask.load_ticket(file)
    final, early = dense(work, CELL, digests)
    experiment = work.experiment()
    drawn = drawing.ticket(experiment, final, early, CELL.threshold)
    *_, (end, measured) = runs.train_ticket(experiment, 0, drawn)
    assert loaded.mask.keys() == drawn.mask.keys()
    for name, mask in drawn.mask.items():
        assert torch.equal(loaded.mask[name], mask)
        for found, wanted in ((loaded.weights, end.weights), (loaded.rewound, early.weights)):
            assert bits(found[name][mask]) == bits(wanted[name][mask])
            assert set(bits(found[name][~mask])) == {0}
    for name in end.weights.keys() - drawn.mask.keys():
        assert bits(loaded.weights[name]) == bits(end.weights[name])
        assert bits(loaded.rewound[name]) == bits(early.weights[name])
    assert loaded.density == pytest.approx(0.1, abs=1e-4)
    assert str(loaded) == f"<{CELL} of lenet_300_100, density 0.1>"
    assert loaded.about["metrics"]["test_accuracy"] == measured.test_accuracy


def test_the_network_of_a_kept_ticket_has_the_accuracy_of_the_results_from_its_file_alone(
    kept, tmp_path
):
    work, _ = kept
    shutil.copy(Tickets(work.folder).trained(CELL), tmp_path / "mine.safetensors")
    loaded = lthdask.load_ticket(tmp_path / "mine.safetensors")
    assert loaded.rewound is None
    assert not loaded.network.training
    test = load(work.study.data).test
    mean, std = (torch.tensor(loaded.about["preprocessing"][name]) for name in ("mean", "std"))
    found = loaded.network((test.images.float() - mean) / std).argmax(1)
    accuracy = (found == test.labels).double().mean().item()
    assert accuracy == Cube(work.folder.cube).metrics(CELL)["test_accuracy"]
    assert loaded.about["study"] == work.study.to_dict()


def test_the_reader_of_the_documentation_needs_torch_and_safetensors_alone(kept):
    work, _ = kept
    page = (Path(__file__).parent.parent / "docs" / "tickets.md").read_text()
    (code,) = re.findall(r"```python\n(import json\n.*?)```", page, re.DOTALL)
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) == {
        *("json", "safetensors", "torch")
    }
    names = dict[str, object]()
    exec(code, names)
    file = Tickets(work.folder).trained(CELL)
    weights, mask = names["read"](file)
    loaded = lthdask.load_ticket(file)
    assert {name: bits(tensor) for name, tensor in weights.items()} == {
        name: bits(tensor) for name, tensor in loaded.weights.items()
    }
    assert all(torch.equal(mask[name], kept) for name, kept in loaded.mask.items())


def test_what_was_not_kept_is_trained_again_in_the_same_bits_and_its_results_stay(
    begun, kept, tmp_path
):
    work = copied(begun[0], tmp_path / "run")
    assert train(work, CELL, begun[1]) == ["done"]
    assert not (work.folder.path / "tickets").exists()
    before, events = files_of(work.folder.path, "results.zarr/**/*"), []
    assert train(keeping(work, **KEEP), CELL, begun[1], events) == ["done"]
    assert files_of(work.folder.path, "results.zarr/**/*") == before
    found = files_of(work.folder.path, "tickets/*", "cells/*/kept.json")
    assert found == files_of(kept[0].folder.path, "tickets/*", "cells/*/kept.json")
    assert len(found) == 3
    assert [event for event in events if event.kind == "warning"] == []
    assert len(work.folder.attempts(CELL)) == 2
    assert train(keeping(work, **KEEP), CELL, begun[1]) == ["done"]
    assert len(work.folder.attempts(CELL)) == 2  # it is there


def test_a_cell_that_is_not_the_same_when_it_is_trained_again_says_so(kept, tmp_path):
    work = copied(kept[0], tmp_path / "run")
    cube = Cube(work.folder.cube)
    metrics = cube.metrics(CELL)
    others = metrics | {"test_loss": metrics["test_loss"] + 1e-9}
    cube.write(CELL, cube.status(CELL), others, {}, {}, {}, "a GPU")
    Tickets(work.folder).drop(CELL)
    before, events = files_of(work.folder.path, "results.zarr/**/*"), []
    assert train(keeping(work, keep="all"), CELL, kept[1], events) == ["done"]
    (said,) = [event.status for event in events if event.kind == "warning"]
    assert re.match(rf"{CELL}, trained again .* results stay as they are: test_loss .* now", said)
    assert files_of(work.folder.path, "results.zarr/**/*") == before
    assert Tickets(work.folder).are_there(CELL)


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_a_worker_that_is_killed_as_it_keeps_a_ticket_leaves_none_that_is_broken(
    begun, kept, tmp_path, written
):
    work = keeping(copied(begun[0], tmp_path / "run"), **KEEP)
    if (child := os.fork()) == 0:
        replacing, left = os.replace, iter(range(written))

        def killed(source, target):
            if "ticket-" in str(target) and "state-" not in str(target):
                if next(left, None) is None:
                    os._exit(7)
            replacing(source, target)

        os.replace = killed
        train(work, CELL, begun[1])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (7 if written < 3 else 0)
    found = list((work.folder.path / "tickets").glob("[!.]*"))
    assert len(found) == min(written, 2)
    for file in found:
        if file == Tickets(work.folder).trained(CELL):
            lthdask.load_ticket(file)
    assert train(work, CELL, begun[1]) == ["done"]
    names = ("tickets/[!.]*", "cells/*/kept.json")
    assert files_of(work.folder.path, *names) == files_of(kept[0].folder.path, *names)
