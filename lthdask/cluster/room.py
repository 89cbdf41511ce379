"""Room: how many workers this machine can have, by its GPUs or cores, and by its memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dask.system import CPU_COUNT
from distributed.system import memory_limit

from lthdask.cluster.workers import devices
from lthdask.errors import InputError

GB = 10**9
WORKER = GB
"""What a worker is given of the memory; training MobileNetV2 of form ``imagenet`` takes 0.7 GB."""
COMMAND = GB
"""What the command is given; it takes 1.1 GB, with the process that its workers are forked from."""
LEAST = 8 * 10**8
"""With less, Linux ends the command as it starts, and nobody says why."""
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Room:
    """How many workers a machine has room for.

    Parameters
    ----------
    places : int
        One per GPU, or by the cores.
    memory : int
        Bytes of memory that may be used here.
    """

    places: int
    memory: int

    @classmethod
    def here(cls, threads: int = 1) -> "Room":
        """Return the room on this machine for workers that compute with so many CPU threads."""
        places = len(devices()) or max(1, int(CPU_COUNT) // threads)
        limits = cgroup_limits(Path("/proc/self/cgroup"), CGROUPS)
        return cls(places, min(memory_limit(), *limits))

    @property
    def workers(self) -> int:
        """Most workers there can be; at least 1, which may find out that it is too much."""
        return max(1, min(self.places, (self.memory - COMMAND) // WORKER))

    def require_memory(self) -> None:
        """Refuse to start where there is no memory even for one worker.

        Raises
        ------
        InputError
            If there is none.
        """
        if self.memory < LEAST:
            raise InputError(
                f"a run takes 1 GB of memory or more; here it may have {self.memory / GB:.1f} GB"
            )

    def why(self, asked: int) -> str | None:
        """Return in a sentence why there are fewer workers than asked for, if there are."""
        if asked <= self.workers:
            return None
        fewer = f"{asked} workers are too many; this machine has room for {self.workers}"
        if self.workers == self.places:
            return fewer
        return (
            f"{fewer}, at 1 GB for each and 1 GB for the command: it has {self.memory / GB:.1f} GB"
        )


def cgroup_limits(own: Path, root: Path) -> Iterator[int]:
    """Yield the limits, in bytes, that control groups put on the memory of this process.

    Dask reads those of the root only, which a container has; a login node or a batch system
    limits groups below it, and any group above ours counts.

    Parameters
    ----------
    own : Path
        The file that names the groups of this process.
    root : Path
        Where control groups are mounted, of version 1, 2 or both.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        mount, names = root, ["memory.max", "memory.high"]
        if controllers:
            mount, names = root / controllers, ["memory.limit_in_bytes"]
        path = PurePosixPath(group.lstrip("/"))
        for place in (path, *path.parents):
            for name in names:
                try:
                    yield int((mount / place / name).read_text())
                except (OSError, ValueError):  # it has none: "max"
                    continue
