"""Train a text reference: a small causal language model on a dataset's texts, without the images.

PRIOR (arXiv 2505.08971) weights a token by how unexpected it is to such a model. What is trained is scored like any other
language model, by a run of its own; :mod:`scorer.training.text_reference` joins the two outputs.
"""
