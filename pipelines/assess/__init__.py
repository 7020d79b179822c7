"""Assess a reference model on rows of a dataset: which rows, and how the result is shown.

The measurements themselves are in :mod:`scorer.assessment`::

    rows        rows from all over a dataset → samples
    document    an assessment as plain data, and as text
    page        an assessment as one HTML page
"""
