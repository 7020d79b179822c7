"""Rows that kill the process that scores them, or hang it: found out, tried alone, and written as failed.

``pulse.py`` tells a worker that hangs, ``attempts.py`` counts how often a unit was begun. ``rows.py`` then tries its
rows one by one: in a process that may die, which ``process.py`` starts and ``sacrifice.py`` is.
"""
