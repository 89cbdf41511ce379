"""The only place that knows Dask: open a client; share, submit, collect and recover.

It knows neither what a ticket is, nor Zarr.
"""
