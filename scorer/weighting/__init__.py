"""Describe a weighting method in one record, from which all help texts and checks are derived.

Each method is in a module of its own here; :mod:`scorer.weights` lists them.
"""
