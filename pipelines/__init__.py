"""The dataset job: it wraps :mod:`scorer` in sources, units, commits and executors, and holds no scoring maths.

The natural way of a run, each step one folder::

    command/ (options → job) → sources/ (list shards, read rows) → run/ (plan, score and commit units, publish shards)
        over engines/ (what scores) and storage/ (where the output lies), on executors/ (this process, or Ray);
        isolation/ takes units that kill or hang their workers

``report/``, ``quality/`` and ``progress/`` tell of it; ``inspection/`` and ``housekeeping/`` are for outputs that are
there. ``score_dataset.py``, ``inspect_run.py`` and ``compact.py`` are the command lines, thin.
"""
