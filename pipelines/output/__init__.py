"""A run's output: what is stored, how it is committed, and how it is read and checked.

``store/`` reads and writes objects. ``plan.py`` cuts shards into units, and ``commit.py`` commits units and publishes
shards. ``record.py``, ``tally.py``, ``summary.py`` and ``attempts.py`` record what was done. ``contents.py`` lists what
is there, ``reader.py`` reads published rows, and ``check.py`` checks them against the run's records. ``compaction.py``
and ``leftovers.py`` are the only code that deletes, and they never delete anything live.
"""
