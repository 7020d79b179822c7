"""Writes published weights into files that trainers read by themselves: ``python -m scorer.training.export --help``.

columns.py says what the run read, dataset.py reads that beside its weights, images.py makes images files, formats.py
has one function per trainer.
"""
