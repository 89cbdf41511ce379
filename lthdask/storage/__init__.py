"""The only place that touches a study's folder: cube, checkpoints, manifest, attempts.

Used by driver, workers and readers. Does not know Dask, nor how anything is trained.
"""
