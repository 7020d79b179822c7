"""The commands: options in, printed results out. ``score``, ``inspect`` and ``compact`` have a ``main`` each."""
