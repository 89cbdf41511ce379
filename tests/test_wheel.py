"""What an installed wheel promises: in an empty folder it can do all that a checkout can.

The wheel is installed into an environment of its own. Every other package is taken from this
one, because torch alone would take minutes.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import lthdask
from lthdask.cluster.settings import Settings
from lthdask.data.readers import load
from tests.test_transfer import OWN_DATA

ROOT = Path(__file__).parent.parent
TINY = [
    *("--set", "network.name=lenet_300_100", "--set", "data.image_size=8"),
    *("--epochs", "2", "--thresholds", "0.5", "--rewind-epochs", "0"),
    *("--deploy", "local", "--workers", "1"),
]

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["uv", "build", "--quiet", "--wheel", ROOT, "--out-dir", folder], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the commands of an environment that has the wheel."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, place], check=True)
    python = place / "bin" / "python"
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", python, wheel]
    subprocess.run(install, check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # Of the folder that it names, Python reads no .pth file: the checkout stays unknown.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin"


def typing_in(folder, commands):
    """Return what runs a command in a folder, of an environment whose commands are given."""
    unknown = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    variables = {name: value for name, value in os.environ.items() if name not in unknown}

    def run(program, *arguments):
        return subprocess.run(
            [commands / program, *arguments],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
        )

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def typed(installed, tmp_path_factory):
    """Run a command in a folder that was empty at first."""
    return typing_in(tmp_path_factory.mktemp("empty"), installed)


@pytest.fixture(scope="module")
def trained(typed):
    return typed("lthdask", "run", *TINY)


def test_the_wheel_holds_the_cluster_file_itself_and_nothing_beside_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("lthdask/cluster/cluster.yaml").decode()
        names = archive.namelist()
    assert text == (ROOT / "cluster.yaml").read_text()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"lthdask"}


def test_lthdask_is_imported_from_the_wheel(typed, installed):
    found = typed("python", "-c", "import lthdask; print(lthdask.__file__)")
    assert Path(found.stdout.strip()).is_relative_to(installed.parent), found


def test_a_grid_is_trained(trained):
    assert (trained.returncode, trained.stderr) == (0, "")
    assert "dashboard: http://127.0.0.1:" in trained.stdout
    assert "1/1 cells" in trained.stdout


def test_what_was_trained_is_shown_checked_and_planned_no_more(trained, typed):
    status = typed("lthdask", "status")
    assert (status.returncode, status.stderr) == (0, "")
    assert "1 done; 1 of 1 dense run trained" in status.stdout
    assert typed("lthdask", "check", "runs/digits").stdout == "runs/digits is whole\n"
    plan = typed("lthdask", "plan", *TINY, "--json")
    assert (json.loads(plan.stdout)["cells"], json.loads(plan.stdout)["done"]) == (0, 1)


def test_the_cluster_file_is_written_and_used(typed):
    assert typed("lthdask", "cluster-file").returncode == 0
    assert Settings.read(typed.folder / "cluster.yaml").deployment == "auto"
    script = typed("lthdask", "run", "--print-job-script")
    assert f"DASK_CONFIG={typed.folder}/cluster.yaml" in script.stdout


def test_the_module_is_the_command(typed):
    module = typed("python", "-m", "lthdask", "--version")
    assert module.stdout == typed("lthdask", "--version").stdout
    assert module.stdout == f"lthdask, version {version('lthdask')}\n"


ELSEWHERE = """
from importlib.util import find_spec
from safetensors.torch import load_file
from torch import nn

assert not find_spec("lthdask")
config, test = json.load(open("my-ticket/config.json")), load_file("test.safetensors")
weights, mask = read("my-ticket/ticket.safetensors")
assert all(not weights[name][~kept].any() for name, kept in mask.items())
layers = [nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
network = nn.Sequential(nn.Flatten(), *layers)
network.load_state_dict(weights)
mean, std = (torch.tensor(config["preprocessing"][name]) for name in ("mean", "std"))
found = network((test["images"].float() - mean) / std).argmax(1)
assert (found == test["labels"]).double().mean() == config["metrics"]["test_accuracy"]
torch.save(weights, "read.pt")
"""
NO_NUMPY = "ignore:Failed to initialize NumPy"
TRAINED_ON = """
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

test = load_file("test.safetensors")
{load}
images, labels = test["images"], test["labels"]
{use}
before = F.cross_entropy(logits, labels)
{train_on}
for _ in range(20):
    loss = F.cross_entropy(network((images.float() - mean) / std), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
assert loss < before
for name, kept in ticket.mask.items():
    weight = network.get_parameter(name)
    assert not weight[~kept].any()
    assert (weight != ticket.weights[name]).any()
"""


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def done(run, *command):
    """Run a command that has to end well, with nothing on standard error; return what it said."""
    found = run(*command)
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    return found.stdout


def test_a_ticket_goes_the_whole_way_home(installed, tmp_path):
    """Trained, kept, exported, read without lthdask, trained on, and trained on other data."""
    typed = typing_in(tmp_path, installed)
    here = ("--deploy", "local", "--workers", "1")
    small = ("--set", "network.name=lenet_300_100", "--set", "data.image_size=8")
    grid = ("--epochs", "3", "--thresholds", "0.5,0.95", "--rewind-epochs", "2")
    done(typed, "lthdask", "run", *small, *grid, "--keep", "all", "--keep-rewound", *here)
    said = done(typed, "lthdask", "export", "runs/digits", "-o", "my-ticket")
    cell = said.partition(":")[0]
    study = lthdask.Study.parse((tmp_path / "runs/digits/study.yaml").read_text())
    test = load(study.data).test
    save_file({"images": test.images, "labels": test.labels}, tmp_path / "test.safetensors")

    alone = tmp_path / "alone"
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, alone], check=True)
    two = [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "safetensors")]
    quiet = ("--quiet", "--link-mode", "symlink", "--python", alone / "bin" / "python")
    subprocess.run(["uv", "pip", "install", *quiet, *two], check=True)
    (reader,) = (code for code in blocks("tickets.md") if "def read(path)" in code)
    without = typing_in(tmp_path, alone / "bin")
    found = without("python", "-W", NO_NUMPY, "-c", reader + ELSEWHERE)
    assert (found.returncode, found.stderr) == (0, "")
    kept = lthdask.load_ticket(tmp_path / f"runs/digits/tickets/{cell}.safetensors")
    read = torch.load(tmp_path / "read.pt")
    assert read.keys() == kept.weights.keys()
    assert all(torch.equal(read[name], weight) for name, weight in kept.weights.items())

    load_it, use, *more = blocks("tickets.md")
    (train_on,) = (code for code in more if "lthdask.hold(" in code)
    code = TRAINED_ON.format(load=load_it, use=use, train_on=train_on)
    done(typed, "python", "-W", "error", "-c", code)

    (tmp_path / "others.py").write_text(OWN_DATA)
    data = ("--set", "name=others", "--set", "data.name=others:halves", "--code", "others.py")
    data += ("--set", "data.image_size=8", "--set", "data.validation=40")
    asked = ("--ticket", "my-ticket/ticket.safetensors", "--epochs", "2", "--replicates", "2")
    said = done(typed, "lthdask", "run", *asked, *data, *here)
    assert "6/6 cells" in said
    assert "verdict, at a margin of 1 point, on the one ticket alone" in " ".join(said.split())
    report = (tmp_path / "runs/others/report.html").read_text()
    assert "All replicates have one ticket of the study digits" in report
