"""From results to tables, sentences and verdicts, wherever the results are read.

This room does not know how they were made.
"""
