"""Health: what became of tasks place by place, and which places are sick.

A task that fails may be broken, or its place may be sick. It is the place's fault where
different tasks fail in a row, and what failed there succeeds elsewhere. A task that fails in
several places says nothing of them. It knows nothing about Dask, so that it can be tried as it is.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

IN_A_ROW = 3
"""Different tasks that fail in a row at a place that is sick."""
OF_LEFT_OUT = 3
"""How many times as often as elsewhere a task may fail at places that are left out: a queue may
give them again and again, and no other."""


@dataclass
class Health:
    """What became of tasks.

    Attributes
    ----------
    known : set of str
        Places that there are, or were.
    left_out : set of str
        Those of them that were found to be sick.
    """

    known: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)
    _failures: dict[str, list[str]] = field(default_factory=dict)
    _in_a_row: dict[str, set[str]] = field(default_factory=dict)
    _succeeded: set[str] = field(default_factory=set)

    def succeeded(self, task: str, place: str) -> None:
        """Note that a task has succeeded at a place."""
        self._in_a_row[place] = set()
        self._succeeded.add(task)

    def failed(self, task: str, place: str) -> None:
        """Note that a task has failed at a place."""
        self.known.add(place)
        self._failures.setdefault(task, []).append(place)
        self._in_a_row.setdefault(place, set()).add(task)

    def died(self, task: str, places: Iterable[str]) -> None:
        """Note where a task has failed in all; what was not noted yet were deaths of processes."""
        unnoted = Counter(places) - Counter(self._failures.get(task, []))
        for place in unnoted.elements():
            self.failed(task, place)

    def has_failed(self, task: str) -> bool:
        """Return whether a task has ever failed."""
        return task in self._failures

    def failures(self, task: str) -> list[str]:
        """Return where a task has failed, but for places that are left out."""
        return [place for place in self._failures.get(task, []) if place not in self.left_out]

    def forgiven(self, task: str, most: int) -> int:
        """Return how many failures of a task are not held against it.

        These are all at places that are left out; and up to `most` at a single place, where
        others are known.
        """
        every, counted = self._failures.get(task, []), self.failures(task)
        alone = len(set(counted)) == 1 and not self.known <= {*counted, *self.left_out}
        elsewhere = min(len(every) - len(counted), OF_LEFT_OUT * most)
        return elsewhere + (min(len(counted), most) if alone else 0)

    def preferred(self, task: str, there: Collection[str]) -> set[str]:
        """Return those of the places that are best for a task that has failed before."""
        others = set(there) - set(self._failures.get(task, [])) - self.left_out
        sound = {place for place in others if not self._in_a_row.get(place)}
        return sound or others or set(there) - self.left_out or set(there)

    def sick(self) -> list[str]:
        """Return the places that have turned out to be sick, and are not left out yet."""
        return [p for p in self._in_a_row if p not in self.left_out and self._is_sick(p)]

    def _is_sick(self, place: str) -> bool:
        only_here = {t for t in self._in_a_row[place] if set(self.failures(t)) <= {place}}
        return len(only_here) >= IN_A_ROW and not only_here.isdisjoint(self._succeeded)
