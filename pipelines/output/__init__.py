"""A run's output: what is stored in it, how that becomes durable, and how it is read and checked.

``store/`` is where it lies. ``plan.py`` cuts shards into units and ``commit.py`` makes units and shards durable;
``record.py``, ``tally.py``, ``summary.py`` and ``attempts.py`` say what was done. ``contents.py`` lists what is there,
``reader.py`` reads published rows, ``check.py`` holds them to what the run says. ``compaction.py``
and ``leftovers.py`` are the only code that deletes, and never what is live.
"""
