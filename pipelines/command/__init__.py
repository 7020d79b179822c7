"""The command ``score_dataset.py``: its options, what it refuses at once, what it prints."""
