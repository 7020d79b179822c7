"""LLaVA 1.5 and its relatives of one fixed image grid."""

from scorer.families.base import Family

LLAVA = Family()
