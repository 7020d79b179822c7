"""Scored text as people see it: ``token_runs`` (what is coloured), ``levels`` (how), ``html`` (in a notebook)."""
