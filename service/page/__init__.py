"""The page at ``/``."""

from fastapi import APIRouter

router = APIRouter()
