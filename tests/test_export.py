"""What an exported ticket promises: the same network elsewhere, in few bytes, and a true card."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import onnxruntime
import pytest
import safetensors.torch
import timm
import torch
import yaml
from click.testing import CliRunner

import lthdask
from lthdask.commands.main import main
from lthdask.errors import InputError
from lthdask.export.choice import Asked, chosen
from lthdask.export.folder import export
from lthdask.export.names import as_timm, timm_name
from lthdask.export.onnx_file import as_onnx
from lthdask.grid import Cell
from lthdask.lottery.ticket import Ticket
from lthdask.networks.build import Network, build
from lthdask.own import allow, is_own
from lthdask.own import chosen as chosen_name
from lthdask.report.summary import sparsest_matching
from lthdask.storage.folder import Folder
from lthdask.storage.tickets import Tickets
from lthdask.training.checkpoint import Checkpoint
from tests.studies import made_study, made_ticket

ROOT = Path(__file__).parent.parent
CELL = Cell("ticket", 1, 0.9, 2)
ABOUT = {
    "metrics": {"test_accuracy": 0.95},
    "engine": {},
    "versions": {"torch": "2.0"},
    "cell": {"arm": "ticket", "replicate": 1, "threshold": 0.9, "rewind_epoch": 2},
}


def accuracy(cell):
    return 0.952 - 0.001 * cell.replicate - 0.0001 * (2 - cell.rewind_epoch)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A study of three replicates, whose tickets all match, with one ticket that was kept."""
    folder = tmp_path_factory.mktemp("made") / "run"
    made_study(folder, replicates=3, arms=("ticket", "reinit"), accuracy=accuracy)
    study = lthdask.Study.parse((folder / "study.yaml").read_text()).to_dict()
    made_ticket(folder, CELL, ABOUT | {"study": study})
    return folder


def exported(run, folder, **more):
    export(run, folder, Asked(), **more)
    return folder


def text_of(folder):
    return (folder / "README.md").read_text()


def test_by_default_it_is_the_cell_of_the_headline_in_the_replicate_of_median_accuracy(run):
    best = sparsest_matching(lthdask.open_results(run))
    assert (best["threshold"], best["rewind_epoch"]) == (CELL.threshold, CELL.rewind_epoch)
    assert chosen(run, Asked())[0] == CELL


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"threshold": 0.5},
            "ticket-r1-t0.5-k2 were not kept; kept are ticket-r1-t0.9-k2; .*`keep` 0.5:2:ticket",
        ),
        ({"threshold": 0.5, "rewind_epoch": 0.0}, "ticket-r1-t0.5-k0 were not kept"),
        ({"replicate": 2}, "ticket-r2-t0.9-k2 were not kept"),
        ({"replicate": 7}, "there is no replicate 7; known: 0, 1, 2"),
        ({"threshold": 0.7}, "there is no threshold 0.7; known: 0.5, 0.9"),
        ({"rewind_epoch": 1.0}, "there is no rewind_epoch 1.0; known: 0, 2"),
        ({"rewind_epoch": 2.0}, "give `threshold`, too: 0.5, 0.9"),
        ({"arm": "random_mask"}, "there is no arm random_mask; known: ticket, reinit"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_what_can(run, asked, said):
    with pytest.raises(InputError, match=said):
        chosen(run, Asked(**asked))


def test_an_arm_that_has_no_k_is_found_without_one(run, tmp_path):
    run, cell = shutil.copytree(run, tmp_path / "run"), Cell("reinit", 1, 0.9, 0)
    made_ticket(run, cell, ABOUT)
    assert chosen(run, Asked(arm="reinit"))[0] == cell


def test_a_file_that_is_gone_is_not_said_to_be_kept(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    (run / f"tickets/{CELL}.safetensors").unlink()
    with pytest.raises(InputError, match=f"{CELL} were not kept; the command of the run trains"):
        chosen(run, Asked())


def test_code_that_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(InputError, match=r"cannot read the code .*nothing.py"):
        exported(run, tmp_path / "out", code=[tmp_path / "nothing.py"])
    assert not (tmp_path / "out").exists()


def test_a_study_without_a_match_asks_for_the_cell(tmp_path):
    run = made_study(tmp_path / "run", accuracy=lambda cell: 0.5)
    with pytest.raises(InputError, match="no ticket of this study is within its margin"):
        chosen(run, Asked())
    run = made_study(tmp_path / "other", arms=("reinit",))
    with pytest.raises(InputError, match="no ticket of this study is within its margin"):
        chosen(run, Asked(arm="reinit"))


def test_an_exported_ticket_is_the_one_that_was_kept_bit_for_bit(run, tmp_path):
    exported(run, tmp_path / "out")
    kept = lthdask.load_ticket(run / f"tickets/{CELL}.safetensors")
    found = lthdask.load_ticket(tmp_path / "out/ticket.safetensors")
    assert found.weights.keys() == kept.weights.keys()
    assert all(torch.equal(found.weights[n], of) for n, of in kept.weights.items())
    assert all(torch.equal(found.mask[n], of) for n, of in kept.mask.items())
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["network"]["name"] == "lenet_300_100"
    assert (config["input"], config["classes"], config["density"]) == ([1, 28, 28], 10, 0.5)
    assert found.rewound.keys() == kept.rewound.keys()
    assert all(torch.equal(found.rewound[n], of) for n, of in kept.rewound.items())
    assert {f.name for f in (tmp_path / "out").iterdir()} == {
        *("ticket.safetensors", "ticket.rewound.safetensors", "config.json", "README.md")
    }
    assert "`ticket.rewound.safetensors` has the weights that" in text_of(tmp_path / "out")


def test_what_it_was_trained_from_goes_along_only_where_it_was_kept(run, tmp_path):
    exported(run, tmp_path / "out")
    alone = shutil.copytree(run, tmp_path / "run")
    (alone / f"tickets/{CELL}.rewound.safetensors").unlink()
    exported(alone, tmp_path / "out")
    assert lthdask.load_ticket(tmp_path / "out/ticket.safetensors").rewound is None
    assert "rewound.safetensors" not in text_of(tmp_path / "out")


def test_a_file_that_is_not_the_one_that_was_kept_is_not_exported(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    other = made_study(tmp_path / "other", replicates=3)
    for name in (f"{CELL}.rewound.safetensors", f"{CELL}.safetensors"):
        made_ticket(other, CELL, ABOUT)  # of other weights
        shutil.copy(other / "tickets" / name, run / "tickets" / name)
        with pytest.raises(InputError, match=f"{name} is not .* this study kept of {CELL}"):
            exported(run, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_sixteen_bits_are_the_rounded_values_and_load_into_the_network(run, tmp_path, dtype, kind):
    exported(run, tmp_path / "out", dtype=dtype)
    kept = lthdask.load_ticket(run / f"tickets/{CELL}.safetensors")
    found = lthdask.load_ticket(tmp_path / "out/ticket.safetensors")
    for name, weight in found.network.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, kept.weights[name].to(kind).float())
    assert f"rounded to {dtype}" in text_of(tmp_path / "out")


def test_values_beyond_sixteen_bits_are_refused(tmp_path):
    run = made_study(tmp_path / "run", replicates=3)
    made_ticket(run, CELL, ABOUT, scale=1e9)
    with pytest.raises(InputError, match="beyond what fp16 can hold; take bf16"):
        export(run, tmp_path / "out", Asked(0.9, 2.0, replicate=1), dtype="fp16")
    assert not (tmp_path / "out").exists()


def test_the_reader_of_the_documentation_works_where_lthdask_is_not_installed(run, tmp_path):
    """A path that is appended by hand takes no notice of an editable installation."""
    file = exported(run, tmp_path / "out", dtype="fp16") / "ticket.safetensors"
    page = (ROOT / "docs" / "tickets.md").read_text()
    (code,) = re.findall(r"```python\n(import json\n.*?)```", page, re.DOTALL)
    code = f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n{code}\n" + (
        f"import importlib.util; assert importlib.util.find_spec('lthdask') is None\n"
        f"weights, mask = read({str(file)!r})\n"
        f"torch.save(weights, {str(tmp_path / 'weights.pt')!r})\n"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=tmp_path)
    found, wanted = torch.load(tmp_path / "weights.pt"), lthdask.load_ticket(file).weights
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())


def test_a_dense_export_is_a_state_dict_that_the_network_takes(run, tmp_path):
    exported(run, tmp_path / "out")
    exported(run, tmp_path / "out", form="dense")
    assert not (tmp_path / "out/ticket.safetensors").exists()
    found = safetensors.torch.load_file(tmp_path / "out/model.safetensors")
    network = build(Network("lenet_300_100"), (1, 28, 28), 10)
    network.load_state_dict(found)
    kept = lthdask.load_ticket(run / f"tickets/{CELL}.safetensors")
    assert all(torch.equal(found[name], of) for name, of in kept.weights.items())


@pytest.mark.parametrize(("width", "channels"), [(1.0, 3), (0.5, 1)])
def test_timm_has_the_same_outputs_from_a_dense_export_of_mobilenet_v2(width, channels):
    network = Network("mobilenet_v2", width=width)
    ours = build(network, (channels, 32, 32), 7).eval()
    for layer in ours.modules():  # statistics as after training
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    theirs = timm.create_model(timm_name(network), num_classes=7).eval()
    in_any_order = dict(sorted(ours.state_dict().items()))
    theirs.load_state_dict(as_timm(network, in_any_order))
    images = torch.randn(2, channels, 32, 32)
    with torch.no_grad():
        found, wanted = theirs(images.expand(-1, 3, -1, -1)), ours(images)
    assert torch.allclose(found, wanted, atol=1e-5 * wanted.abs().max())


@pytest.mark.parametrize("network", [Network("mobilenet_v2", form="small"), Network("resnet20")])
def test_no_name_of_timm_is_given_to_a_network_that_computes_something_else(network):
    assert timm_name(network) is None
    with pytest.raises(InputError, match="timm has no network that computes the same"):
        as_timm(network, {})


@pytest.mark.parametrize(("form", "compact"), [("onnx", True), ("onnx-sparse", False)])
def test_onnx_runtime_has_the_outputs_of_the_ticket_from_fewer_bytes(run, tmp_path, form, compact):
    exported(run, tmp_path / "out", form=form, compact=compact)
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
    images = torch.randn(5, 1, 28, 28)
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        wanted = lthdask.load_ticket(run / f"tickets/{CELL}.safetensors").network(images)
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-5)
    assert 'network.run(None, {"images":' in text_of(tmp_path / "out")


class Shifting(torch.nn.Conv2d):
    def forward(self, images):
        return super().forward(images) + 1


def test_onnx_has_the_layers_of_a_network_as_they_are(tmp_path):
    network = torch.nn.Sequential(Shifting(1, 2, 3), torch.nn.Flatten()).eval()
    (tmp_path / "model.onnx").write_bytes(as_onnx(network, (1, 3, 3)))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = torch.randn(4, 1, 3, 3)
    (found,) = session.run(None, {"images": images.numpy()})
    assert torch.allclose(torch.from_numpy(found), network(images), atol=1e-5)


def test_what_is_compacted_is_onnx_in_single_precision(run, tmp_path):
    for given, said in (
        ({"compact": True}, "what is compacted is written as ONNX; take the format onnx"),
        ({"form": "onnx", "dtype": "fp16"}, "ONNX is written in fp32; got fp16"),
    ):
        with pytest.raises(InputError, match=said):
            exported(run, tmp_path / "out", **given)


def test_the_card_says_how_good_how_sure_and_how_found(run, tmp_path):
    text = text_of(exported(run, tmp_path / "out"))
    for said in (
        "# lenet_300_100 with 50 % of its weights, on mnist",
        "| this network | 95.00 |",
        "| mean of 3 replicates | 95.10 ± 0.25 |",
        "| less the dense network, points | 0.10 ± 0.25 |",
        "**no better than control**, at a margin of 0.2 points",
        "## How it was found\n\nLottery tickets",
        "Zeros alone make no network faster",
    ):
        assert said in text


OWN = """
from torch import nn

def network(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * shape[0], classes))
"""


@pytest.mark.parametrize(
    ("named", "channels", "form"),
    [
        ("lenet_300_100", 3, "sparse"),
        ("lenet_300_100", 1, "dense"),
        ("lenet_300_100", 1, "onnx"),
        ("mobilenet_v2", 1, "dense"),
        ("torchvision/resnet18", 1, "dense"),
        ("timm/test_vit", 1, "dense"),
        ("timm/test_resnet", 1, "dense"),
        ("own", 1, "sparse"),
        ("own", 3, "dense"),
    ],
)
def test_the_code_of_the_card_gives_the_logits_of_the_ticket(
    run, tmp_path, monkeypatch, named, channels, form
):
    files = []
    if named == "own":
        (tmp_path / "classifier.py").write_text(OWN)
        files = [tmp_path / "classifier.py"]
        allow(files[0])
        named = chosen_name("network", "classifier:network", ())
    shape, classes, network = (channels, 64, 64), 5, Network(named)
    if is_own(named) or named == "lenet_300_100":
        shape = (channels, 8, 8)
    weights = build(network, shape, classes).state_dict()
    about = ABOUT | {
        **{"name": str(CELL), "network": vars(network), "input": shape, "classes": classes},
        "preprocessing": {"mean": [[[9.0]]] * channels, "std": [[[70.0]]] * channels},
        "study": yaml.safe_load((run / "study.yaml").read_text()),
    }
    run = shutil.copytree(run, tmp_path / "run")
    file = Tickets(Folder(run)).trained(CELL)
    file.with_name(f"{CELL}.rewound.safetensors").unlink()
    start = Checkpoint(0, weights)
    Tickets(Folder(run)).keep(CELL, Ticket(start, {}, {}), None, about)
    exported(run, tmp_path / "out", form=form, code=files)
    text = text_of(tmp_path / "out")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    images = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.syspath_prepend(tmp_path)
    if files:
        code = code.replace("classifier.py", "../classifier.py")
    said = {"images": images}
    with torch.no_grad():
        exec(code, said)  # as a reader of the card would
        wanted = lthdask.load_ticket(file, files).network((images.float() - 9) / 70)
    assert torch.allclose(torch.as_tensor(said["logits"]), wanted, atol=1e-5)


def test_what_is_refused_leaves_no_folder(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"ONNX needs more packages; .*'lthdask\[export\]'"):
        exported(run, tmp_path / "out", form="onnx")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files .* such as notes.txt"):
        export(run, tmp_path, Asked())
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match="is no folder"):
        export(run, tmp_path / "notes.txt", Asked())


def test_the_command_exports_and_says_what(run, tmp_path):
    out = tmp_path / "out"
    given = ["export", str(run), "-o", str(out), "--threshold", "0.9", "--rewind-epoch", "2"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    size = (out / "ticket.safetensors").stat().st_size
    assert done.output.startswith(f"{CELL}: {out}, {size / 1e3:,.0f} KB, ")
    done = CliRunner().invoke(main, [*given, "--replicate", "0"])
    assert done.exit_code == 2
    assert "--keep 0.9:2:ticket" in done.stderr
    done = CliRunner().invoke(main, [*given, "--rewind-epoch", "x"])
    assert (done.exit_code, "--rewind-epoch takes epochs, such as 2" in done.stderr) == (2, True)
