"""Models whose family has no record: the class does everything, and every row runs alone."""

from scorer.contrasts import Capability
from scorer.families.base import Family
from scorer.families.resizing import unknown

UNLISTED_VISION = Family(
    pixel_names=None,
    processed_pixels=unknown,
    several_images=False,
    class_forward=True,
    batched=False,
    # Whether the other tokens keep their positions depends on the class and is unknown.
    capabilities=frozenset({Capability.IMAGES, Capability.TEXT_ALONE}),
    fast=False,
)
"""A class of ``AutoModelForImageTextToText``, checked against its own processor and class when it is loaded."""

TEXT_ONLY = Family(
    pixel_names=(),
    text_only=True,
    class_forward=True,
    template_without_chat=(
        "{% for message in messages %}{{ message['content'] }}"
        "{% if message['content'] and not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
    ),
    capabilities=frozenset({Capability.TEXT_ALONE}),
    fast=False,
)
"""A class of ``AutoModelForCausalLM``, which computes P(token | text before it), as PRIOR needs."""
