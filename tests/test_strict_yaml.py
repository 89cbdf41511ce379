"""What reading YAML and text promises: the same values on every machine, or a sentence."""

import math
import os
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lthdask.errors import InputError
from lthdask.strict_yaml import LARGEST_FILE, dumped, loaded, text_of

VALUES = {
    "010": 10,
    "-08": -8,
    "+3": 3,
    "5e-4": 5e-4,
    "5.": 5.0,
    ".5": 0.5,
    "-.inf": -math.inf,
    "0x10": "0x10",
    "0o7": "0o7",
    "0b11": "0b11",
    "1_000": "1_000",
    "12:30": "12:30",
    "04:00:00": "04:00:00",
    "2024-05-01": "2024-05-01",
    "yes": "yes",
    "off": "off",
    "True": True,
    "null": None,
    "~": None,
    "": None,
    "<<": "<<",
    "=": "=",
}


@pytest.mark.parametrize(("text", "value"), VALUES.items(), ids=repr)
def test_numbers_are_decimal_and_words_are_texts(text, value):
    found = loaded(f"a: {text}", "a study")["a"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "problem"),
    {
        "a: &x 1\nb: *x": ", line 2: write out the value of the alias",
        "a: 1\n'a': 2": ", line 2: the key 'a' is given twice",
        "- [{b: 1, b: 2}]": ", line 1: the key 'b' is given twice",
        "a: !!python/object:os.system x": ", line 1: could not determine a constructor",
        "a: !!timestamp x": ", line 1: could not determine a constructor",
        "a: !!set {b}": ", line 1: could not determine a constructor",
        "a: !!bool x": ": not YAML",
        "a: " + "[" * 5000: ": it is nested too deeply",
        "a: \0": ": it holds the character",
        "? [a]\n: 3": ", line 1: found unhashable key",
        "a: 1\n---\nb: 2": ", line 2: but found another document",
    }.items(),
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text, problem):
    with pytest.raises(InputError, match=f"^a study{problem}"):
        loaded(text, "a study")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]))
    | st.from_regex(r"[-+.0-9eE_:xob]{1,8}", fullmatch=True),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc01.", min_size=1), inner),
)


@given(PLAIN, st.booleans())
def test_what_is_written_is_read_again_and_by_other_readers_too(values, on_a_line):
    text = dumped({"a": values}, on_a_line)
    assert loaded(text, "a study") == {"a": values}
    assert yaml.safe_load(text) == {"a": values}


def test_a_file_that_is_no_short_text_is_refused_and_none_is_waited_for(tmp_path):
    (tmp_path / "latin").write_bytes(b"name: caf\xe9")
    (tmp_path / "wide").write_bytes("name: a".encode("utf-16"))
    (tmp_path / "long").write_bytes(b"#" * (LARGEST_FILE + 1))
    os.mkfifo(tmp_path / "pipe")
    for name, problem in {
        "latin": "it is not text in UTF-8",
        "wide": "it is not text in UTF-8",
        "long": "it has 1,000,001 bytes, and 1,000,000 are the most",
        "pipe": "it is no regular file",
        ".": "it is no regular file",
        "none": "No such file",
        "n" * 300: "File name too long",
        "a\0b": "embedded null byte",
    }.items():
        with pytest.raises(InputError, match=f"cannot read the study file .*: {problem}"):
            text_of(tmp_path / name, "study file")
    (tmp_path / "marked").write_text("name: a\r\n", encoding="utf-8-sig", newline="")
    assert text_of(tmp_path / "marked", "study file").split() == ["name:", "a"]


READ = """
from lthdask.reading import study_text, yaml_mapping
print(ascii(yaml_mapping(study_text("mine.yaml"), "mine.yaml")))
"""


def test_a_study_is_read_alike_whatever_the_locale(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: für später – ≥ 80 %\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        cwd=tmp_path,
        env=os.environ | ascii_only,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == (ascii({"name": "für später – ≥ 80 %"}) + "\n", "")
