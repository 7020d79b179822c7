"""Find rows that kill or hang the process that scores them, and store them as failed.

``heartbeat.py`` notices a worker that hangs, and :mod:`pipelines.output.attempts` counts the attempts at a unit.
``isolate.py`` then tries the unit's rows one by one in a sacrificial process: ``process.py`` starts it, and
``row_worker.py`` is what it runs.
"""
