"""The only place that touches a study's folder: cube, checkpoints, manifest, attempts.

Driver, workers and readers use it. It knows neither Dask nor how anything is trained.
"""
