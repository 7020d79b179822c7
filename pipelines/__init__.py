"""The dataset job: it wraps :mod:`scorer` in sources, units, commits and executors, and holds no scoring maths.

The natural way of a run, each step one file::

    sources/ (list shards) → plan.py (shards → units) → executors/ (where units run) → score_unit.py (one unit,
    read → encode → score → commit) → commit.py (markers, published shards) → summary.py (_SUCCESS)

``job.py`` knows the order; ``score_dataset.py`` is the command line around it.
"""
