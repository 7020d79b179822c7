"""Display scored text: ``token_runs`` (what is coloured), ``levels`` (in which colour), ``html`` (in a notebook)."""
