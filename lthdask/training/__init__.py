"""The training loop, for one model or a cohort; recipe, engine, evaluation, checkpoint.

Knows neither tickets nor Dask nor the disk.
"""
