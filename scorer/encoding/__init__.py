"""``Sample`` → ``EncodedSample``, on CPUs, without torch and without the model's weights.

``images.py`` (decode) → ``image_processing.py`` (the model's own pixels, ``pixels.py`` keeps them as bytes);
``template.py`` → ``rendering.py`` (conversation → ids with byte spans, control tokens apart). ``encoder.py`` puts both
together and builds the clean and the contrast branch.
"""
