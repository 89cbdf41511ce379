"""What the driver does: what is left to train, in which order, and the sweep over it.

Runs in the process of the command or notebook. It knows neither torch nor Dask's API.
"""
