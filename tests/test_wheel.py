"""What an installed wheel promises: in an empty folder it can do all that a checkout can.

The wheel is installed into an environment of its own. Every other package is taken from this
one, because torch alone would take minutes.
"""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from lthdask.cluster.settings import Settings

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


@pytest.fixture(scope="module")
def typed(installed, tmp_path_factory):
    """Run a command in a folder that was empty at first."""
    folder = tmp_path_factory.mktemp("empty")
    unknown = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    variables = {name: value for name, value in os.environ.items() if name not in unknown}

    def run(program, *arguments):
        return subprocess.run(
            [installed / program, *arguments],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
        )

    run.folder = folder
    return run


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
