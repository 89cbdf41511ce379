"""What the project promises as a whole: one list of dependencies, a light engine, few names."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import lthdask
from benchmarks.fault_kinds import KINDS, TESTED
from lthdask.commands.main import main
from lthdask.report.methods.references import REFERENCES

ROOT = Path(__file__).parent.parent
CONDA = {"torch": "pytorch", "dask": "dask-core"}


def test_environment_yml_names_the_dependencies_and_ranges_of_pyproject_toml():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        CONDA.get(r.name, r.name): r.specifier for r in map(Requirement, project["dependencies"])
    }
    wanted["python"] = SpecifierSet(project["requires-python"])
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = {}
    for line in environment["dependencies"]:
        if isinstance(line, str) and line != "pip":
            name, _, ranges = line.partition(" ")
            listed[name] = SpecifierSet(ranges)
    assert listed == wanted
    assert environment["channels"] == ["conda-forge", "nodefaults"]


def test_the_versions_that_passed_are_one_of_each_package_within_the_ranges_and_name_no_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    passed = dict(re.fullmatch(r"([a-z0-9-]+)==([\d.a-z+]+)", line).groups() for line in lines)
    assert len(passed) == len(lines)
    for wanted in map(Requirement, project["dependencies"]):
        assert passed[wanted.name] in wanted.specifier, wanted


def test_the_engine_imports_with_nothing_but_torch_torchvision_and_numpy():
    heavy = "dask distributed zarr xarray pydantic yaml safetensors sklearn click rich pandas"
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy.split()!r}))\n"
    code += (
        "import lthdask.lottery.runs, lthdask.lottery.drawing, lthdask.training.cohort, "
        "lthdask.networks.build, lthdask.data.batches, lthdask.data.readers"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_lthdask_imports_nothing_but_lthdask():
    code = "import sys; before = {*sys.modules}; import lthdask\n"
    code += "print(*{name.partition('.')[0] for name in {*sys.modules} - before})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - sys.stdlib_module_names == {"lthdask"}


def test_the_public_names_are_few_and_all_there():
    questions = ["controls", "difference_to_dense", "early_stop", "frontier", "select", "verdicts"]
    names = ["InputError", "Options", "Study", "follow", "open_client", "open_results", "run"]
    names += ["hold", "load_ticket", "open_mask", "submit", "transfer"]
    assert dir(lthdask) == lthdask.__all__ == sorted([*names, *questions])
    assert all(getattr(lthdask, name).__doc__ for name in lthdask.__all__)
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = lthdask.magic


def options(command):
    return {"--help", *(option for given in command.params for option in given.opts)}


PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
OTHERS = {"--check", "--nv", "--bind"}  # of ruff and Apptainer
OTHERS |= {"--gres", "--exclusive", "--no-requeue", "--dependency", "--overlap"}  # of Slurm


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_a_page_names_is_one_of_our_commands(page):
    """Where the line names the command, of that one."""
    known = {name: options(command) for name, command in main.commands.items()}
    every = set().union(options(main), *known.values()) | OTHERS
    for line in (ROOT / page).read_text().splitlines():
        named = re.findall(r"(?<![\w-])--[a-z][a-z-]*", line.partition("#SBATCH")[0])
        command = re.search(r"(?:scripts/|\blthdask )([a-z-]+)(?:\.py)?", line)
        there = known[command[1]] if command and command[1] in known else every
        assert set(named) <= there, line


CFF = {
    "cff-version": str,
    "message": str,
    "type": str,
    "title": str,
    "abstract": str,
    "version": str,
    "license": str,
    "keywords": list,
    "authors": list,
    "references": list,
}
CFF_REFERENCE = {"type": str, "title": str, "authors": list, "year": int, "url": str}
CFF_MAY = {"conference": dict, "notes": str}
"""Keys of the Citation File Format 1.2.0 that are used here, with their types."""


def test_citation_cff_is_valid_and_cites_what_the_methods_cite():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {key: type(value) for key, value in found.items()} == CFF
    assert (found["cff-version"], found["type"]) == ("1.2.0", "software")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all(found[key] == project[key] for key in ("version", "license", "keywords"))
    assert (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1].startswith(found["version"])
    assert found["authors"] == [{"name": "The lthdask developers"}]
    for reference in found["references"]:
        types = {key: type(value) for key, value in reference.items()}
        assert types.items() <= (CFF_REFERENCE | CFF_MAY).items()
        assert types.items() >= CFF_REFERENCE.items()
        assert reference["type"] in ("conference-paper", "generic")
        assert all(set(name) == {"family-names", "given-names"} for name in reference["authors"])
        assert set(reference.get("conference", ["name"])) == {"name"}
        initials = (
            f"{a['family-names']}, {' '.join(f'{n[0]}.' for n in a['given-names'].split())}"
            for a in reference["authors"]
        )
        begin = f"{', '.join(initials)} ({reference['year']}). {reference['title']}. "
        number = reference["url"].removeprefix("https://arxiv.org/abs/")
        assert [
            whole
            for whole in REFERENCES.values()
            if whole.startswith(begin) and whole.endswith(f"arXiv:{number}.")
        ]


def test_every_test_that_the_method_page_names_is_there():
    page = (ROOT / "docs" / "method.md").read_text()
    guards = re.findall(r"(test_\w+\.py): (\w+)", page)
    assert guards
    for file, name in guards:
        assert f"def test_{name}" in (ROOT / "tests" / file).read_text(), name


def test_every_kind_of_fault_that_ci_leaves_to_a_test_is_tried_by_one():
    tests = "".join(file.read_text() for file in (ROOT / "tests").glob("test_*.py"))
    assert TESTED.keys() <= KINDS.keys()
    for name in TESTED.values():
        assert f"def test_{name}" in tests, name


@pytest.mark.parametrize("page", [*PAGES, "benchmarks/README.md"])
def test_every_file_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text()
    for name in re.findall(r"`((?:lthdask|tests|scripts|benchmarks|docs)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    rooms = "checks|cluster|commands|data|driver|lottery|networks|pruning|report|storage|training"
    for name in re.findall(rf"`((?:{rooms}|worker)/[\w./]+)`", text):
        assert (ROOT / "lthdask" / name).exists(), name
