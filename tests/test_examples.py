"""What the docstrings promise: their examples are true."""

import doctest
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tests.test_verdict import minus, results

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "lthdask").rglob("*.py")
    if any(">>> " in line and "+SKIP" not in line for line in file.read_text().splitlines())
)


def small():
    """The results of which the examples speak: two thresholds by two rewind epochs."""
    ticket = [
        [minus(0.1, 0.2, 0), minus(-0.2, -0.1, -0.3)],
        [minus(-4.3, -4.2, -4.4), minus(-0.6, 1, -2.2)],
    ]
    slow = {"iterations_to_dense": [[[40, np.inf, np.inf]] * 2] * 2}
    return results({"ticket": ticket, "random_mask": np.array(ticket) - 0.03}, speed=slow)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_the_docstrings_are_true(name):
    found = doctest.testmod(import_module(name), extraglobs={"results": small()})
    assert found.attempted
    assert not found.failed
