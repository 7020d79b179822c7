"""What people see while a run goes on.

``watch.py`` is told of every unit; ``snapshot.py`` is what the run amounts to at a moment, and ``line.py``, ``file.py``
and ``ray_metrics.py`` show that.
"""
