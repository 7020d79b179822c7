"""One run from start to end: plan, score, commit, publish, sum up.

``job.py`` knows the order and ``score_unit.py`` is one unit's work. ``engine.py`` and ``executor.py`` are the
protocols of what scores and of where units run.
"""
