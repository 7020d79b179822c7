"""Score datasets: sources, units, commits and executors around :mod:`scorer`, with no scoring maths of their own.

Each folder is a floor and imports only from the floors below it (tests/test_imports.py)::

    cli/        turn options into a job, print the outcome
    progress/   show how far a run is
    executors/  run units, in this process or on Ray
    run/        a job from start to end; the protocols of engine and executor
    report/     the HTML report, the dataset card, what the scores say about the data
    output/     store results, commit them, read and check them
    sources/    list shards, read rows

``score_dataset.py``, ``inspect_run.py`` and ``compact.py`` are thin scripts; the ``tokensight`` command calls the same
``main`` functions.
"""
