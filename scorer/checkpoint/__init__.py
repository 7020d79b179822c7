"""A reference model's files: where they are, how processor and weights load from them, what identifies them.

``files.py`` (:class:`Checkpoint`: directory or hub snapshot) over ``processor.py`` (tokenizer, image processor, chat
template) and ``loading.py`` (weights: dtype, devices, quantised, adapted); ``fingerprint.py`` says what decides scores.
"""
