"""Inputs that are bad, or nearly so, by kind, and what is to become of each.

A row is an input and a part of the sentence that it is refused with, or None if it is right. They
are tried one by one, by `tests/test_bad_inputs.py` and by `benchmarks/bad_inputs.py`.
"""

from tests.bad_inputs import clusters, commands, data, files, python, studies

KINDS = [bad for of in (studies, clusters, commands, python, data, files) for bad in of.rows()]
