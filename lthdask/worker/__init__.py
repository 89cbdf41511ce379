"""What a worker does: train the dense run, train cells, compare masks; save their states.

These are the bodies of the tasks, which run in the worker processes. They do not know Dask.
"""
