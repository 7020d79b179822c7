"""Locate, load and identify a reference model's files.

``files.py`` holds :class:`Checkpoint`, a directory or hub snapshot. It uses ``processor.py`` (tokenizer, image
processor, chat template) and ``loading.py`` (weights: dtype, devices, quantization, adapter). ``fingerprint.py``
records everything that decides scores.
"""
