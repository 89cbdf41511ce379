"""What becomes of bad inputs, by kind: a clear sentence, or something else.

Run from the repository's root: ``PYTHONPATH=. uv run python benchmarks/bad_inputs.py``. Each input
is tried by itself, with a time limit and little memory to be had beyond what the process has.
"""

import warnings
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bad_inputs import KINDS
from tests.bad_inputs.trying import ACCEPTED, CLEAR, OUTCOMES, SECONDS, tried


def main() -> None:
    """Try every input, and print the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--kind", help="try the inputs of one kind only, such as 'study file'")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which one hangs")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = [bad for bad in KINDS if asked.kind in (None, bad.kind)]
    found = Counter[tuple[str, str]]()
    with TemporaryDirectory() as folder:
        for number, bad in enumerate(chosen):
            outcome, said = tried(bad, Path(folder) / str(number), asked.seconds)
            found[bad.kind, outcome] += 1
            if outcome not in (CLEAR, ACCEPTED):
                print(f"{bad}: {outcome}\n{said}")
    _print(found)


def _print(found: Counter[tuple[str, str]]) -> None:
    print(f"| kind | tried | {' | '.join(OUTCOMES)} |")
    print("|---" * (2 + len(OUTCOMES)) + "|")
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    for kind in kinds:
        counts = [found[kind, outcome] for outcome in OUTCOMES]
        print(f"| {kind} | {sum(counts)} | {' | '.join(map(str, counts))} |")
    sums = [sum(found[kind, outcome] for kind in kinds) for outcome in OUTCOMES]
    print(f"| **all** | **{sum(sums)}** | {' | '.join(f'**{n}**' for n in sums)} |")


if __name__ == "__main__":
    main()
