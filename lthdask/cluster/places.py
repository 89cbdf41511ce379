"""Where workers can be, by name. It does not import Dask, so ``--help`` need not wait for that."""

import getpass
import os

QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
}
"""Queue → its class in dask-jobqueue."""
DEPLOYMENTS = ("auto", "local", "srun", "scheduler", *QUEUES)


def tunnel(here: int, there: int) -> str:
    """Return the line that brings a port of this machine to one of the user's own."""
    try:
        user = f"{getpass.getuser()}@"
    except (KeyError, OSError):  # of a container that runs under a number without a name
        user = ""
    return f"ssh -N -L {here}:127.0.0.1:{there} {user}{os.uname().nodename}"
