"""What the driver does: what is left to train, in which order, and the sweep over it.

It runs in the process of the command or notebook, and knows neither torch nor Dask's API.
"""
