"""Run units: ``local.py`` in this process, ``ray_data.py`` on a Ray cluster.

An executor manages processes and devices; :mod:`pipelines.run.score_unit` does the work of a unit. ``isolation/``
handles the units that kill or hang their workers.
"""
