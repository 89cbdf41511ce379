"""Settings of Dask that lthdask rests on; the cluster file has the last word."""

MEMORY = {
    # Dask has workers give freed memory back at once, and training asks for it again in the
    # next step: page faults halved the speed of MobileNetV2 (189 against 407 images/s).
    "MALLOC_TRIM_THRESHOLD_": 2**30,
    "MALLOC_MMAP_THRESHOLD_": 2**30,
}
SAMPLING = {
    # How often Dask looks at a worker. The thread that trains waits for that: on two cores, 12
    # cells took 32 s at Dask's own 100 and 50 times a second, and 27 s so.
    "distributed.worker.profile.interval": "100 ms",
    "distributed.admin.tick.interval": "200 ms",
}
SETTINGS = {
    # Checkpoints are dependencies of every cell; without these two, Dask hands out cells
    # eagerly, ignores their priority, and blames one lost worker on cells that never ran.
    "distributed.scheduler.rootish-taskgroup": 100_000,
    "distributed.scheduler.rootish-taskgroup-dependencies": 100_000,
    "distributed.scheduler.worker-saturation": 1.0,
    # A cell is not to blame for the worker it was on.
    "distributed.scheduler.allowed-failures": 1000,
    # One that has nothing to do would take tasks that have failed there before. Were it switched
    # off, its page in the dashboard would be an error.
    "distributed.scheduler.work-stealing-interval": "1000 d",
    # It would drop the copies of the checkpoints that were scattered to every worker.
    "distributed.scheduler.active-memory-manager.policies": [],
    # Training is one long call; a worker in it is busy, not lost.
    "distributed.scheduler.worker-ttl": "30 minutes",
    **SAMPLING,
    # Workers of this machine are forked from one process that has imported torch: one that
    # died is replaced in 0.2 s in place of 4 s.
    "distributed.worker.multiprocessing-method": "forkserver",
    # So that data sets that stream from disk may start readers.
    "distributed.worker.daemon": False,
    **{f"distributed.nanny.pre-spawn-environ.{key}": value for key, value in MEMORY.items()},
}
ALONE = {
    # There are no others to keep tasks for. So the worker does not wait for the scheduler,
    # which sends at most one message every 5 ms.
    "distributed.scheduler.worker-saturation": 4.0,
}
