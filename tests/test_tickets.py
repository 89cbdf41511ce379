"""What kept tickets promise: small files that hold exact bits, and nothing that is not a ticket."""

import json
import os
import re
import shutil
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import example, given

import lthdask
from lthdask.cluster.local import start_forkserver
from lthdask.data.readers import load
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.storage import ticket_file
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.sparse import decoded, encoded
from lthdask.storage.tickets import Tickets, final_weights
from lthdask.worker.cells import train_cells
from lthdask.worker.tasks import train_dense
from tests.studies import made_study, made_ticket
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
    assert len(work.folder.runs.attempts(CELL)) == 2
    assert train(keeping(work, **KEEP), CELL, begun[1]) == ["done"]
    assert len(work.folder.runs.attempts(CELL)) == 2  # it is there


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


def killed_as_it_keeps(work, digests, written):
    """Train a cell in this process, which dies once so many files of its ticket are written."""
    replacing, left = os.replace, iter(range(written))

    def killed(source, target):
        of_ticket = "ticket-" in str(target) and "state-" not in str(target)
        if of_ticket and next(left, None) is None:
            os._exit(7)
        replacing(source, target)

    os.replace = killed
    train(work, CELL, digests)


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_a_worker_that_is_killed_as_it_keeps_a_ticket_leaves_none_that_is_broken(
    begun, kept, tmp_path, written
):
    work = keeping(copied(begun[0], tmp_path / "run"), **KEEP)
    start_forkserver()  # a fork of this process cannot train, once it has written ONNX
    worker = get_context("forkserver").Process(
        target=killed_as_it_keeps, args=(work, begun[1], written), name="Dask Worker process"
    )
    worker.start()
    worker.join()
    assert worker.exitcode == (7 if written < 3 else 0)
    found = list((work.folder.path / "tickets").glob("[!.]*"))
    assert len(found) == min(written, 2)
    for file in found:
        if file == Tickets(work.folder).trained(CELL):
            lthdask.load_ticket(file)
    assert train(work, CELL, begun[1]) == ["done"]
    names = ("tickets/[!.]*", "cells/*/kept.json")
    assert files_of(work.folder.path, *names) == files_of(kept[0].folder.path, *names)


DIGITS = Cell("ticket", 0, 0.95, 2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A study with a ticket of random weights, of which half survive."""
    folder = made_study(tmp_path_factory.mktemp("made") / "digits", sparse=0.95)
    made_ticket(folder, DIGITS)
    return folder


@pytest.fixture
def made(alone, tmp_path):
    """The folder of its tickets, alone, and the file of that one."""
    shutil.copytree(alone / "tickets", tmp_path / "runs/digits/tickets")
    return tmp_path, tmp_path / f"runs/digits/tickets/{DIGITS}.safetensors"


def test_the_page_on_tickets_loads_one_and_trains_on_with_its_zeros(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(lthdask.__file__).parent.parent / "docs" / "tickets.md").read_text()
    load, use, *more = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (train_on,) = (code for code in more if "lthdask.hold(" in code)
    images = torch.randint(256, (8, 1, 28, 28)).byte()
    names = {"torch": torch, "images": images}
    exec(load, names)
    exec(use, names)
    assert names["logits"].shape == (8, 10)
    network, mask = names["ticket"].network, names["ticket"].mask
    exec(train_on, names)
    optimizer = names["optimizer"]
    for _ in range(3):
        network(images / 255.0).square().mean().backward()
        optimizer.step()
    for name, weight in network.named_parameters():
        if name in mask:
            assert not weight[~mask[name]].any()
            assert (weight[mask[name]] != names["ticket"].weights[name][mask[name]]).any()


def rewritten(file, change=lambda about: None, tensors=lambda found: None):
    """Write a ticket's file again with something else in it, and the digest that belongs to it."""
    content = file.read_bytes()
    found = safetensors.torch.load(content)
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = json.loads(head["__metadata__"]["lthdask"])
    del about["digest"]
    change(about)
    tensors(found)
    about["digest"] = ticket_file._digest(found, about)
    file.write_bytes(safetensors.torch.save(found, {"lthdask": json.dumps(about)}))
    return file


def to(*path, value):
    def change(about):
        *before, last = path
        for name in before:
            about = about[name]
        about[last] = value

    return change


SHAPE = ("shapes", "1.weight")
HOSTILE = {
    "a module": (to("network", "name", value="os:getcwd@0123456789abcdef"), "code of its own"),
    "a module, bare": (to("network", "name", value="os:getcwd"), "code of its own"),
    "another network": (to("network", "name", value="resnet21"), "unknown network"),
    "no text": (to("network", "name", value=["os"]), "not a valid ticket"),
    "more keys": (to("network", "depth", value=10**9), "not a valid ticket"),
    "other weights": (to("classes", value=11), "does not fit the network"),
    "classes for a petabyte": (to("classes", value=10**13), "does not fit the network"),
    "an input for a petabyte": (to("input", value=[1, 10**7, 10**6]), "does not fit the network"),
    "more than there is": (to("input", value=[2**62, 2**62]), "not a valid ticket"),
    "no numbers": (to("input", value=["1", 28, 28]), "not a valid ticket"),
    "a petabyte of weights": (to(*SHAPE, value=[10**9, 10**6]), "not a valid ticket"),
    "no petabyte, but of none": (to(*SHAPE, value=[0, 10**30]), "not a valid ticket"),
    "less than none": (to(*SHAPE, value=[-300, -784]), "not a valid ticket"),
    "half a weight": (to(*SHAPE, value=[1.5, 784]), "not a valid ticket"),
    "a weight that is not there": (to("shapes", "7.weight", value=[1]), "not a valid ticket"),
    "no shapes": (to("shapes", value=None), "not a valid ticket"),
    "another mask": (to("mask", value="0" * 64), "not a valid ticket: it has another mask"),
    "a newer format": (to("format", value=2), "newer version"),
    "no format": (to("format", value="x"), "not a valid ticket"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(made, name, monkeypatch):
    import resource

    change, problem = HOSTILE[name]
    monkeypatch.setattr("builtins.exec", None)
    monkeypatch.setattr("importlib.import_module", None)
    rewritten(made[1], change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=problem):
        lthdask.load_ticket(made[1])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def resized(name, size):
    def change(found):
        found[name] = found[name].new_ones(size)

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (resized("1.weight", 5), "5 values for 117,600 places"),
        (resized("1.weight", (2, 2)), "do not lie in a row"),
        (resized("1.weight.bits", 5), "not those of 235,200 places"),
        (lambda found: found.pop("1.weight.bits"), "needs .bits or .gaps"),
        (lambda found: found.pop("1.weight"), "not a valid ticket"),
        (lambda found: found.pop("1.bias"), "does not fit the network"),
        (lambda found: found.update({"9.bias": torch.ones(1)}), "does not fit the network"),
        (lambda found: found.update({"1.bias": torch.ones(300).double()}), "does not fit"),
    ],
)
def test_a_mask_or_weights_that_do_not_fit_are_refused(made, change, problem):
    rewritten(made[1], tensors=change)
    with pytest.raises(InputError, match=problem):
        lthdask.load_ticket(made[1])


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"{}", "[" * 99_999], ids=len)
def test_what_is_no_ticket_is_refused(made, content):
    if isinstance(content, str):
        rewritten(made[1], lambda about: about.update(metrics=0))
        file = made[1].read_bytes().replace(b'metrics\\": 0', b'metrics\\": ' + content.encode())
        content = (int.from_bytes(file[:8], "little") + 99_998).to_bytes(8, "little") + file[8:]
    made[1].write_bytes(content)
    with pytest.raises(InputError, match="is not a valid ticket"):
        lthdask.load_ticket(made[1])
    with pytest.raises(InputError, match="cannot read the ticket .* No such file"):
        lthdask.load_ticket(made[0] / "nothing")
    for endless in ("/dev/zero", "a\0b"):
        with pytest.raises(
            InputError, match="cannot read the ticket .*: it is no reg|holds a null"
        ):
            lthdask.load_ticket(endless)


def test_rewound_weights_of_another_mask_are_refused(made):
    shutil.copy(made[1], other := made[1].with_name("other.safetensors"))
    beside = made[1].with_name(f"{DIGITS}.rewound.safetensors")
    shutil.copy(beside, beside.with_name("other.rewound.safetensors"))
    assert lthdask.load_ticket(other).rewound
    rewritten(beside.with_name("other.rewound.safetensors"), to("mask", value="0" * 64))
    with pytest.raises(InputError, match="belongs to another mask"):
        lthdask.load_ticket(other)


def test_a_network_of_one_s_own_needs_the_code_that_its_study_was_begun_with(made, tmp_path):
    from lthdask.networks.build import Network

    mine = tmp_path / "kept_mine.py"
    mine.write_text(
        "from torch import nn\n\ndef build(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), *(nn.Linear(*of) for of in [(784, 300), (300, 100)]"
        "), nn.Linear(100, classes))\n"
    )

    def names(found):
        digits = {"1": "1", "3": "2", "5": "3"}
        for name in [*found]:
            place, dot, rest = name.partition(".")
            found[f"{digits[place]}-{dot}{rest}"] = found.pop(name)
        for name in [*found]:
            found[name.replace("-", "")] = found.pop(name)

    name = f"kept_mine:build@{__import__('hashlib').sha256(mine.read_bytes()).hexdigest()[:16]}"
    shapes = {"1.weight": [300, 784], "2.weight": [100, 300], "3.weight": [10, 100]}

    def change(about):
        about |= {"network": vars(Network("lenet_300_100")) | {"name": name}, "shapes": shapes}

    rewound = made[1].with_name(f"{DIGITS}.rewound.safetensors")
    rewound.unlink()
    found = lthdask.load_ticket(made[1])
    mask = {new: found.mask[old] for new, old in zip(shapes, found.mask, strict=True)}
    rewritten(made[1], lambda a: (change(a), a.update(mask=ticket_file.mask_digest(mask))), names)
    with pytest.raises(
        InputError, match=r"if you trust it, give the file kept_mine.py with `code`"
    ):
        lthdask.load_ticket(made[1])
    ticket = lthdask.load_ticket(made[1], code=[mine])
    assert ticket.network(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    mine.write_text("")
    rewritten(made[1], to("network", "name", value="kept_mine:build@0123456789abcdef"))
    with pytest.raises(InputError, match="is not the file that the study was begun with"):
        lthdask.load_ticket(made[1], code=[mine])


def test_a_round_goes_on_from_no_kept_ticket_which_lacks_the_optimizer_s_state(tmp_path):
    folder = tmp_path / "run"
    made_study(folder)
    for arm, serves in {"ticket": True, "lr_rewind_iterated": False}.items():
        cell = Cell(arm, 0, 0.5, 0)
        made_ticket(folder, cell)
        assert Tickets(Folder(folder)).are_there(cell)
        assert (final_weights(Folder(folder), cell, "") is not None) == serves
