"""Ask whether a reference model can be trusted on a dataset, by its own rows and without labels::

    assess          the order of the measurements: samples → Assessment
    own_image       does a caption gain more from its own image than from another row's?
    word_swaps      a caption's word → a word that stands in the same place in another caption
    swapped         does the image favour the caption's own word?
    reading         can the model read the text at all?
    modality        how far apart are image tokens and text tokens inside the model?
    numerics        how much do dtype, batches and the contrast change the scores?
    verdict         figures → a grade, with reasons and remedies; the thresholds

Whoever shows an assessment reads :class:`scorer.assessment.assess.Assessment`.
"""
