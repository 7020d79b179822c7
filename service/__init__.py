"""The HTTP scoring service: ``scorer`` as a FastAPI application, in one process or as replicas under Ray Serve.

request → key → limits → parse → image → encode (a pool) → batch → model (one thread) → response
          security  limits  bodies └──────── scoring ───────┘  batcher  scorer_pool       responses
"""
