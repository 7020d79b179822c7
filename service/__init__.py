"""The HTTP scoring service: ``scorer`` as a FastAPI application, in one process or as replicas under Ray Serve.

request → key → limits → parse → image → encode (a pool) → batch → model (one thread) → response
          security  limits  bodies └──────── scoring ───────┘  batcher  scorer_pool       responses
"""

from scorer.extras import PACKAGES, require

require(*(module for module, package in PACKAGES.items() if package.extra == "service"), wanted_by="the service")
