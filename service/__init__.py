"""The HTTP scoring service: ``scorer`` behind FastAPI, in one process or as replicas under Ray Serve.

request → key → limits → parse → picture → encode (a pool) → batch → model (one thread) → response
          security  limits  bodies   └──────── scoring ────────┘  batcher  models            responses
"""
