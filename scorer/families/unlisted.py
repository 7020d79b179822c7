"""Models whose family has no record: everything is left to the class, and every row goes alone."""

from scorer.contrasts import Capability
from scorer.families.base import Family

UNLISTED_VISION = Family(
    pixel_names=None,
    several_images=False,
    class_forward=True,
    batched=False,
    # Where hidden tokens keep their positions is the class's own affair, and not known.
    capabilities=frozenset({Capability.IMAGES, Capability.TEXT_ALONE}),
    fast=False,
)
"""A class of ``AutoModelForImageTextToText``. Held to its own processor and class when it is loaded."""

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
"""A class of ``AutoModelForCausalLM``: P(token | text before it), which PRIOR asks for."""
