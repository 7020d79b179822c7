"""Find rows that kill or hang the process that scores them, and store them as failed.

``heartbeat.py`` notices a worker that hangs, and :mod:`pipelines.output.attempts` counts the attempts at a unit.
``isolate.py`` then scores the unit in a sacrificial process, without the rows that kill it: ``process.py`` starts it,
and ``row_worker.py`` is what it runs.
"""
