"""Run units: ``local.py`` in this process, ``ray_actors.py`` on a Ray cluster.

An executor manages processes and devices; :mod:`pipelines.run.score_unit` does the work of a unit. ``isolation/``
handles the units that kill or hang their workers. On a cluster, the actor of ``ray_scoring.py`` holds the model, those
of ``ray_encoders.py`` encode, and ``feeder.py`` feeds the former from the latter.
"""
