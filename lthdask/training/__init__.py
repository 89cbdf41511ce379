"""The training loop, for one model or a cohort; recipe, engine, evaluation, checkpoint.

This room knows neither tickets nor Dask nor the disk.
"""
