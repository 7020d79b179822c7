"""Rows that kill or hang the process that scores them: found, tried alone, and written as failed.

``heartbeat.py`` notices a worker that hangs; :mod:`pipelines.output.attempts` counts how often a unit was begun.
``isolate.py`` then tries the unit's rows one by one, in a process that may die: ``process.py`` starts it, and
``row_worker.py`` is what it runs.
"""
