"""Where units run: ``local.py`` in this process, ``ray_data.py`` on a Ray cluster.

An executor knows processes and devices; what a unit is, it leaves to :mod:`pipelines.run.score_unit`. ``isolation/``
takes the units that kill or hang their workers.
"""
