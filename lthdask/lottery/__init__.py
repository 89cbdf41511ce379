"""The experiments as plain functions: draw a ticket, train it, compare children.

Knows neither Dask nor the disk.
"""
