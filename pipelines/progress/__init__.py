"""Show how far a run is.

``watch.py`` counts every committed unit, ``snapshot.py`` sums up the run at one moment, and ``line.py``, ``file.py``
and ``ray_metrics.py`` display it.
"""
