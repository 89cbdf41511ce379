"""What a paper says of a study's methods, in words that are true of this study.

A sentence is a function of `Facts`, and empty where there is nothing to say.
"""
