"""One run from start to end: plan, score, commit, publish, sum up.

``job.py`` knows the order. ``plan.py`` cuts shards into units, ``score_unit.py`` is one unit's work, ``commit.py`` the
protocol by which units and shards become durable; ``record.py``, ``tally.py`` and ``summary.py`` say what was done.
"""
