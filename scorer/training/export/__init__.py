"""Writes published weights into files that trainers read by themselves: ``tokensight export --help``.

dataset.py reads the dataset beside its weights, images.py makes its pictures files, formats.py has one function per
trainer.
"""
