"""Sick places: a task that has failed is tried elsewhere, and places that are sick are left out."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client, SchedulerPlugin

from lthdask.cluster.calls import FailedError
from lthdask.cluster.excluding import exclude_node
from lthdask.cluster.health import Health
from lthdask.cluster.workers import place_of

log = logging.getLogger(__name__)


class Loosen(SchedulerPlugin):  # type: ignore[misc]
    """Have a task that was to be tried elsewhere take any worker, once there was none at all.

    Dask itself would keep it for workers that are gone, whatever `allow_other_workers` says.
    """

    name = "lthdask-loosen"
    idempotent = True

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Look at what waits for a worker; Dask calls this before it gives the new one work."""
        for task in scheduler.unrunnable:
            if task.loose_restrictions:
                task.worker_restrictions = None


class SickPlaces:
    """Where the workers of a client are, and what became of tasks there.

    A place is a node, or a worker where all are on this machine.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self.client, self.health = client, Health()
        self._nodes: dict[str, str] = {}
        self._has_given_up_the_only_one = self._loosened = False

    def outcome(self, task: str, result: Any) -> Any:
        """Note where a task has succeeded or failed, and return its outcome."""
        if isinstance(result, FailedError):
            outcome, place, self._nodes[place] = result.args
            self.health.failed(task, place)
            if place in self.health.left_out:  # by a job that was queued before, or a new process
                self._end(place)
        elif isinstance(result, Exception):  # final, or of Dask itself
            return result
        else:
            outcome, place = result
            self.health.succeeded(task, place)
        self._leave_out_sick()
        return outcome

    def died(self, task: str, attempts: Sequence[Mapping[str, str]]) -> None:
        """Note where attempts at a task have failed, also by the death of their process."""
        self._there()
        self._nodes.update((attempt["worker"], attempt["node"]) for attempt in attempts)
        self.health.died(task, [attempt["worker"] for attempt in attempts])
        self._leave_out_sick()

    def forgiven(self, task: str, most: int) -> int:
        """Return how many failures of a task are not held against it; see :class:`Health`."""
        return self.health.forgiven(task, most)

    def preference(self, task: str) -> dict[str, Any]:
        """Return where a task that has failed is to be tried again, as Dask's annotations."""
        if not self.health.has_failed(task):
            return {}
        if not self._loosened:
            self.client.register_plugin(Loosen())
            self._loosened = True
        there = self._there()
        preferred = self.health.preferred(task, there)
        workers = [address for place in preferred for address in there[place]]
        return {"workers": workers, "allow_other_workers": True} if workers else {}

    def leave_out_the_only_one(self, task: str) -> bool:
        """Have a queue replace the only place that was ever there, and where a task has failed.

        It is done once, because a task that is broken must not cost node after node.
        """
        places = set(self.health.failures(task))
        if self._has_given_up_the_only_one or len(places) != 1:
            return False
        (place,), there = places, self._there()
        if self.health.known - self.health.left_out != places:
            return False
        if not exclude_node(self.client, self._node(place), there.get(place, {}).values()):
            return False
        self._has_given_up_the_only_one = True
        self._note(place, f"{task} failed there every time, and no other place was tried")
        return True

    def _leave_out_sick(self) -> None:
        if self.client.cluster is None:
            return  # workers of somebody else, who may need them; what failed is tried elsewhere
        for place in self.health.sick():
            if self._there().keys() <= {place, *self.health.left_out}:
                return  # there is no other one
            self._note(place, "different runs failed there in a row, and one succeeded elsewhere")
            self._end(place)

    def _end(self, place: str) -> None:
        """End the workers at a place."""
        workers = self._there().get(place, {})
        if not exclude_node(self.client, self._node(place), workers.values()):
            self.client.retire_workers(list(workers), close_workers=True)

    def _note(self, place: str, why: str) -> None:
        self.health.left_out.add(place)
        log.warning("%s is left out: %s", self._node(place), why)

    def _node(self, place: str) -> str:
        """Return a place as its queue calls it."""
        return self._nodes.get(place, place)

    def _there(self) -> dict[str, dict[str, str]]:
        """Return where workers are now: place → address → name."""
        found: dict[str, dict[str, str]] = {}
        for address, worker in self.client.scheduler_info()["workers"].items():
            found.setdefault(place_of(worker["name"], address), {})[address] = worker["name"]
        self.health.known.update(found)
        return found
