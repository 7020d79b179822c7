"""Write a dataset and its published weights in formats that trainers read directly: ``tokensight export --help``.

columns.py finds the columns that the run read, dataset.py reads them beside their weights, images.py turns images into
files, formats.py has one function per trainer.
"""
