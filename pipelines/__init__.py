"""The dataset job: it wraps :mod:`scorer` in sources, units, commits and executors, and holds no scoring maths.

Each folder is a floor and imports only floors below it (tests/test_imports.py)::

    cli/        options → job; what is printed
    progress/   what people see while a run goes on
    executors/  where units run: this process, or Ray
    run/        a job from start to end; the protocols of engine and executor
    report/     the HTML report, the dataset card, what the scores say about the data
    output/     what is stored, how it becomes durable, how it is read and checked
    sources/    list shards, read rows

``score_dataset.py``, ``inspect_run.py`` and ``compact.py`` are the scripts, thin; the command
``tokensight`` runs the same mains.
"""
