"""Whatever is given, it is refused in a clear sentence, or accepted rightly.

What starts processes, or takes long, is tried with ``-m faults``.
"""

import pytest

from tests.bad_inputs import KINDS
from tests.bad_inputs.trying import ACCEPTED, CLEAR, tried


@pytest.mark.filterwarnings(  # the last: of sockets of those that start processes, later
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::PIL.Image.DecompressionBombWarning",
    "ignore:invalid value",
    "ignore:Validating sparse",
)
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(bad, id=str(bad), marks=[pytest.mark.faults] if bad.starts or bad.slow else [])
        for bad in KINDS
    ],
)
def test_a_bad_input_is_refused_in_a_clear_sentence(bad, tmp_path):
    outcome, said = tried(bad, tmp_path / "here")
    assert outcome == (CLEAR if bad.told is not None else ACCEPTED), said
