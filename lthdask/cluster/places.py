"""Where workers can be, by name. It does not import Dask, so ``--help`` need not wait for that."""

QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
}
"""Queue → its class in dask-jobqueue."""
DEPLOYMENTS = ("auto", "local", "srun", "scheduler", *QUEUES)
