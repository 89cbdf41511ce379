"""How often signatures hold, by the number of runs: uv run python benchmarks/signatures.py.

Draws grids whose true accuracies are known, with the noise of the published one, and judges
them as `lthdask reproduce` does. Where the published medians are true, so is every signature;
two further grids make (i) and (iii) just false. The lines "before" are the rules of (i) and
(iii) until 2026-11-26: no difference was shown, at a deviation of 0.34.
"""

import argparse
import math
from collections.abc import Iterator
from itertools import combinations
from statistics import NormalDist

import numpy as np

from lthdask.report.contrasts import deviation_of_median
from lthdask.report.published import Accuracy, Numbers, Place, published
from lthdask.report.signatures import RULES, signatures

CARD = published("cifar10-resnet20")
ROWS, CLOSE, PLATEAU = CARD.remaining, CARD.signature["close"], CARD.signature["plateau"]
RUNS = (1, 3, 10, 30)
Cells = dict[Place, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    print(f"{f'holds in % of {draws} grids':40}", *(f"{n:4} runs" for n in RUNS))
    true = {place: cell.percent for place, cell in CARD.one_shot.cells.items()}
    rates = {n: held(true, n, draws) for n in RUNS}
    for number in rates[1]:
        show(f"published medians, ({number})", [rates[n][number] for n in RUNS])
    reinit = {Place("reinit", None, r): true[Place("ticket", 0, r)] - CLOSE for r in ROWS}
    show("k=0 is 1 point above reinit, (i)", [held(true | reinit, n, draws)["i"] for n in RUNS])
    fallen = {Place("ticket", 52, r): below_the_others(true, 52, r) for r in ROWS}
    show(
        "k=52 is 1 point below the mean, (iii)",
        [held(true | fallen, n, draws)["iii"] for n in RUNS],
    )


def below_the_others(true: Cells, k: int, row: float) -> float:
    """Return the accuracy of one k that lies `CLOSE` below the mean of its plateau."""
    others = [true[Place("ticket", other, row)] for other in PLATEAU if other != k]
    return math.fsum(others) / len(others) - CLOSE * len(PLATEAU) / len(others)


def held(true: Cells, runs: int, draws: int) -> dict[str, float]:
    """Return the share of grids in which each rule holds, in percent."""
    found = dict.fromkeys(["before, i", "before, iii", *RULES], 0)
    for numbers in drawn(true, runs, draws):
        judged = {s.number: s.holds is True for s in signatures(numbers, CARD)}
        for name, holds in (judged | before(numbers, runs)).items():
            found[name] += holds
    return {name: 100 * count / draws for name, count in found.items()}


def drawn(true: Cells, runs: int, draws: int) -> Iterator[Numbers]:
    random = np.random.default_rng(0)
    noise = random.normal(0, CARD.deviation, (draws, runs, len(true)))
    medians = np.array(list(true.values())) + np.median(noise, axis=1)
    assert CARD.one_shot.dense
    deviation = CARD.dense_deviation / math.sqrt(runs)
    means = random.normal(CARD.one_shot.dense.percent, deviation, draws)
    for row, mean in zip(medians, means, strict=True):
        cells = {place: Accuracy(float(p), runs) for place, p in zip(true, row, strict=True)}
        yield Numbers(cells, Accuracy(float(mean), runs))


def before(numbers: Numbers, runs: int) -> dict[str, bool]:
    starts = [(Place("ticket", 0, r), Place("reinit", None, r)) for r in ROWS]
    pairs = [
        (Place("ticket", a, r), Place("ticket", b, r))
        for r in ROWS
        for a, b in combinations(PLATEAU, 2)
    ]
    return {"before, i": alike(numbers, starts, runs), "before, iii": alike(numbers, pairs, runs)}


def alike(numbers: Numbers, pairs: list[tuple[Place, Place]], runs: int) -> bool:
    z = NormalDist().inv_cdf(1 - 0.025 / len(pairs))
    most = z * 0.34 * deviation_of_median(runs) * math.sqrt(2)
    cells = numbers.cells
    return all(abs(cells[a].percent - cells[b].percent) <= most for a, b in pairs)


def show(name: str, values: list[float]) -> None:
    print(f"{name:40}", *(f"{value:9.0f}" for value in values))


if __name__ == "__main__":
    main()
