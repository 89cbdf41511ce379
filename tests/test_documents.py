"""README and docs/ say what is true: each block is run or checked, each link leads somewhere.

A block of code is Python where it parses as such, and commands otherwise. A comment before it,
which no page shows, says what it is instead: `<!-- output -->`, the test that runs it, or
`<!-- needs a cluster -->`, and likewise a GPU, data, time or a network. Such commands are not run,
but their options are checked all the same.
"""

import ast
import re
import shlex
import tomllib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import click
import pandas
import pytest
import xarray
import yaml
from click.testing import CliRunner
from markdown_it import MarkdownIt

import lthdask
from lthdask.commands.asked import asked_study
from lthdask.commands.main import main
from tests.studies import made_study

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PAGES = [page.relative_to(ROOT).as_posix() for page in PAGES]
MARK = re.compile(
    r"<!-- (every block )?"
    r"(?:(output|tests/\w+\.py)|needs (?:a )?(cluster|GPU|data|time|network)).* -->"
)
OURS = {"pip", "uv", "git", "cd", "ruff", "mypy", "lint-imports", "tee", "sphinx-build"}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    needs: str | None

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks(page):
    """Blocks of code, each with the mark that stands before it."""
    before, everywhere = None, None
    for token in MarkdownIt("commonmark").parse((ROOT / page).read_text()):
        if token.type == "html_block" and (mark := MARK.fullmatch(token.content.strip())):
            before = mark[2] or mark[3]
            everywhere = before if mark[1] else everywhere
            continue
        if token.type in ("code_block", "fence") and not token.info.startswith("{"):
            language = token.info or ("python" if is_python(token.content) else "shell")
            needs = before or everywhere
            yield Block(page, token.map[0] + 1, language, token.content, needs)
        before = None


def is_python(text):
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


BLOCKS = [block for page in PAGES for block in blocks(page) if block.needs != "output"]
SHELL = [block for block in BLOCKS if block.language == "shell"]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def commands(text):
    """Commands of a shell block, in words, without what stands before and behind them."""
    text = re.sub(r"\$\([^)]*\)", "0.5", text.replace("\\\n", " "))
    text = re.sub(r" \d?>(&\d| ?\S+)", "", text)
    text = re.sub(r"\[(--[^]]*)]", lambda given: given[1].replace("|", ","), text)
    for line in text.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        words.whitespace_split = True
        command = []
        for word in [*words, ";"]:
            if set(word) <= set("&|;"):
                if command := without_prefix(command):
                    yield command
                command = []
            else:
                command.append(word)


def without_prefix(words):
    words = [word for word in words if not re.match(r"[A-Z_0-9]+=", word)]
    while words and words[0] in ("uv", "timeout", "python", "python3", "-m"):
        if words[0] == "uv" and words[1] != "run":
            break
        taken = 2 if words[0] in ("uv", "timeout") else 1
        words = words[taken:]
        if words and words[0] == "--with":
            words = words[2:]
    return words


def options_of(words):
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def check(words):
    """Parse a command as the program would that it names."""
    name, *given = words
    if script := re.fullmatch(r"scripts/(\w+)\.py", name):
        assert (ROOT / name).is_file()
        name, given = "lthdask", [script[1], *given]
    if name == "lthdask":
        parsed(given)
    elif name.endswith(".py"):
        text = (ROOT / name).read_text()
        assert all(f'"{option}"' in text for option in options_of(given)), words
    elif name == "pytest":
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
        known = {marker.partition(":")[0] for marker in settings["ini_options"]["markers"]}
        asked = given[given.index("-m") + 1] if "-m" in given else ""
        assert set(re.findall(r"\w+", asked)) - {"or", "not", "and"} <= known
        assert all((ROOT / word).exists() for word in given if word.startswith("tests/"))
    elif name == "bash":
        assert (ROOT / given[0]).is_file()
    else:
        assert name in OURS, f"say what this block needs, or that it is output: {words}"


def parsed(given):
    command = main.commands[given[0]]
    try:
        context = command.make_context(given[0], given[1:])
    except click.exceptions.Exit:  # of --help
        return
    if {"study", "thresholds"} <= set(context.params):
        asked_study(context.params | {"ticket": None})  # whose run is not there


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one_that_its_program_takes(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(lthdask.Study.read("digits").to_yaml())
    for block in SHELL:
        if block.page == page and block.needs not in ("network", "tests/test_own.py"):
            for words in commands(block.text):
                check(words)


def test_every_other_block_of_a_page_is_of_its_language():
    for block in BLOCKS:
        if block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict)
        else:
            assert block.language in ("python", "shell", "bash"), f"{block}: {block.language}"


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON if not block.needs}))
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """Each statement as a notebook's cell, with figures of its own."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("BOKEH_BROWSER", "none")
    (tmp_path / "runs").mkdir()
    made_study(tmp_path / "runs" / "digits", ("ticket", "random_mask", "reinit"), 3, sparse=0.95)
    results = lthdask.open_results("runs/digits")
    names = {"lthdask": lthdask, "pandas": pandas, "xarray": xarray}
    names |= {"results": results, "one": results, "other": results}
    import cf_xarray  # noqa: F401 - as the page says

    for block in PYTHON:
        if block.page == page and not block.needs:
            for statement in ast.parse(block.text).body:
                cell = ast.Module([statement], [])
                exec(compile(cell, str(block), "exec"), names)
                plt.close("all")


def anchors(page):
    """Headings of a page as a forge names them."""
    tokens = MarkdownIt("commonmark").parse(page.read_text())
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            text = "".join(part.content for part in inline.children)
            yield re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    text = MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text())
    links = [
        link.attrs.get("href") or link.attrs.get("src")
        for token in text
        for link in token.children or []
        if link.type in ("link_open", "image")
    ]
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, heading = link.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), link
        assert not heading or heading in anchors(file), link


READING = ("check", "plan", "report", "results", "status", "cluster-file", "run")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A study of digits, as small as it can be."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    grid = ["--thresholds", "0.5", "--rewind-epochs", "4", "--deploy", "local", "--keep", "all"]
    done = CliRunner().invoke(main, ["run", *grid, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in SHELL if not b.needs], ids=str)
def test_the_commands_of_a_page_do_what_they_say(block, digits, tmp_path, monkeypatch):
    """Those that would train are planned instead."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/digits").symlink_to(digits)
    Path("my.yaml").write_text(replace(lthdask.Study.read("digits"), name="my").to_yaml())
    Path("cluster.yaml").write_text((ROOT / "cluster.yaml").read_text())  # as in a checkout
    for words in commands(block.text):
        name, *given = words
        if name != "lthdask" or given[0] not in READING or "--data" in given:
            continue
        if given[0] == "run" and "--print-job-script" not in given:
            given.append("--dry-run")
        elif "runs/longer" in given:
            Path("runs/longer").symlink_to(digits)
        done = CliRunner().invoke(main, given)
        assert done.exit_code == 0, (words, done.output)
