"""Describe a weighting method in one record, from which all help texts and checks are derived.

The methods themselves, one record each, are in :mod:`scorer.weights`.
"""
