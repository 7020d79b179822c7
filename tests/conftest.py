"""Settings of every property test."""

from __future__ import annotations

from hypothesis import settings

# The time of one example says nothing on a shared machine.
settings.register_profile("tokensight", deadline=None)
settings.load_profile("tokensight")
