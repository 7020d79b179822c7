"""Looking at an output: how far its run is, whether its files are what was published, what is in them.

Reads only. ``outputs.py`` (what is there) → ``integrity.py`` and ``rows.py`` (is it sound) → ``show.py`` (say so);
``samples.py`` prints captions. ``pipelines/inspect_run.py`` is the command line, ``cli.py`` what it does.
"""
