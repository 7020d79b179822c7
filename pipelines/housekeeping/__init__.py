"""What may be removed from an output: the only part of the program that deletes, and never what is live.

``leftovers.py`` finds what died with its process, ``compaction.py`` what a published shard has made superfluous;
``objects.py`` removes. ``pipelines/compact.py`` is the command line, ``cli.py`` what it does.
"""
