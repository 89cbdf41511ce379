"""The only place that knows Dask: open a client; share, submit, collect and recover.

Does not know what a ticket is, nor Zarr.
"""
