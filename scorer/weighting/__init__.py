"""What a weighting method says about itself: the record that every reader derives its words and checks from.

The methods themselves, one record each, are in :mod:`scorer.weights`.
"""
