"""From results to tables, sentences and verdicts, wherever the results are read.

Does not know how they were made.
"""
