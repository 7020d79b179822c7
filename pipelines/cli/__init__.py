"""The commands: read options, print results. ``score``, ``inspect`` and ``compact`` each have a ``main``."""
