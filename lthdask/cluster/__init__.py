"""The only place that knows Dask: open a client; share, submit, collect and recover.

`queue` notices what a dead worker took with it, and submits it again. Does not know what a ticket
is, nor Zarr.
"""
