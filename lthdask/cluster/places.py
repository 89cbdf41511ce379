"""Where workers can be, by name. Known without Dask, so that ``--help`` need not wait for it."""

QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
}
"""Queue → its class in dask-jobqueue."""
DEPLOYMENTS = ("auto", "local", "scheduler", *QUEUES)
