"""Run a job from start to end: plan, score, commit, publish, summarize.

``job.py`` sets the order, and ``score_unit.py`` does the work of one unit. ``engine.py`` is the protocol of what
scores, ``executor.py`` of what runs units.
"""
