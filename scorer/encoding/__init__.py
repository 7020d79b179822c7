"""Encode a ``Sample`` into an ``EncodedSample`` on the CPU, without torch or the model's weights.

For images, ``images.py`` decodes them and ``image_processing.py`` runs the model's own processor; ``pixels.py`` decides
whether pixels stay bytes. For text, ``template.py`` locates each text in the rendered prompt and ``rendering.py``
tokenizes it into ids with byte spans; ``control_tokens.py`` keeps data from spelling control tokens. ``encoder.py``
combines both and builds the clean and the contrast branch.
"""
