"""The language of the packaged model's captions: sentences, fragments, lists, fields and dialogues about a scene.

What a caption says comes from the scene; how it says it comes from a generator and never depends on a fact that the
text has not stated yet. Unknown words, names and numbers stand around the facts, so that a model trained on it learns
that any words may, and that only some depend on the image.
"""
