"""What the scores say about the dataset: contradictions, captions that need no image, repeats, lengths.

One pass over the published files, using a few megabytes of memory whatever their size::

    batches.py (rows as flat arrays) → figures.py (distributions), duplicates.py, scan.py (ranks) → export.py (Parquet)
"""
