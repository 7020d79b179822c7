"""Documents for people, written beside the scores: the HTML report (``page.py``) and the dataset card."""
