"""What is written beside the scores for people: the report (``page.py`` and what it shows) and the dataset card."""
