"""Train a text reference: a small causal language model on a dataset's texts, without the images.

PRIOR (arXiv 2505.08971) weights a token by how unexpected it is to such a model. The model scores the texts in a run of
its own, as any language model does; :mod:`scorer.training.text_reference` joins the two outputs.
"""
