"""Settings of the service: ``TOKENSIGHT_*`` environment variables or flags of ``tokensight serve``."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from scorer.config import MAX_BATCH_TOKENS, MAX_TEXT_BYTES, Attention, DType, Quantization, ScorerConfig
from scorer.contrasts import DEFAULT
from scorer.errors import ConfigError
from scorer.fetching.fetcher import Fetcher
from scorer.mini import MODEL_PATH
from scorer.types import DEFAULT_PROMPT
from service.schemas import ContrastName, contrast_names

PREFIX: Final = "TOKENSIGHT_"

Words = Annotated[tuple[str, ...], NoDecode]
"""Several values, separated by commas."""


class Settings(BaseSettings):
    """Score over HTTP how much each word of a caption depends on its image."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all interfaces")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="accepted API keys, separated by commas; none: no key is required"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="lowest level that is logged")

    model: str = Field(
        str(MODEL_PATH),
        min_length=1,
        description="reference model: a folder or a hub id (default: the packaged mini model)",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub model")
    dtype: DType = Field("float32", description="dtype in which the model computes")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    device_map: Literal["auto"] | None = Field(None, description="auto: spread one large model over all GPUs")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one model's decoder")
    attention: Attention = Field("sdpa", description="attention of the vision tower and of the plain path")
    quantization: Quantization | None = Field(None, description="quantise the model when loading it")
    adapter: str | None = Field(None, description="LoRA adapter to merge when loading: a folder or a hub id")
    compile: bool = Field(False, description="compile the decoder blocks with torch.compile")
    contrast: ContrastName = Field(DEFAULT, description="default contrast; must be one of contrasts")
    contrasts: Annotated[tuple[ContrastName, ...], NoDecode] = Field(
        contrast_names(), description="contrasts to serve if the model supports them, separated by commas"
    )
    prompt: str = Field(DEFAULT_PROMPT, description="instruction that a bare caption answers")
    truncate: bool = Field(False, description="truncate texts that exceed the context instead of refusing them")
    stop_token: bool = Field(
        True,
        description="also score the token with which the chat template ends a turn (default: on; off: --no-stop-token)",
    )
    contrast_cache_bytes: int = Field(
        2**30, ge=0, description="memory for contrast prefixes that requests share, bytes"
    )

    max_batch_tokens: int = Field(
        MAX_BATCH_TOKENS, ge=1, description="maximum number of tokens in a forward pass; what samples share counts once"
    )
    max_batch_rows: int = Field(32, ge=1, description="samples per batch, which limits how long the next batch waits")
    batch_wait_ms: float = Field(
        4.0, ge=0, le=1000, description="how long the first sample of a batch waits for others, milliseconds"
    )
    encode_threads: int = Field(0, ge=0, description="threads that decode and encode; 0: one per four cores")
    torch_threads: int = Field(0, ge=0, description="threads of the model on a CPU; 0: OMP_NUM_THREADS or all cores")

    queue_size: int = Field(256, ge=1, description="maximum samples accepted and not yet answered; beyond that: 429")
    request_seconds: float = Field(
        30.0, gt=0, description="deadline of a request, seconds; after that: 504, or 408 if its body has not arrived"
    )
    drain_seconds: float = Field(30.0, gt=0, description="time to answer accepted requests after SIGTERM, seconds")
    heartbeat_seconds: float = Field(
        60.0, gt=0, description="silence of the model's thread after which it is not ready, seconds"
    )

    max_connections: int = Field(
        512,
        ge=1,
        description="maximum open connections; beyond that, one that waits for its client is closed; without one: 503",
    )
    max_head_bytes: int = Field(
        32 * 2**10,
        ge=1024,
        description="maximum size of a request's line and headers, and of its trailers and chunk framing, bytes; "
        "beyond that: 431",
    )
    head_seconds: float = Field(
        10.0, gt=0, description="time for a request's line and headers to arrive, seconds; after that: 408"
    )
    max_body_bytes: int = Field(20 * 2**20, ge=1, description="maximum size of a request body, bytes; beyond that: 413")
    max_pending_bytes: int = Field(
        256 * 2**20, ge=1, description="maximum total size of bodies and fetched images in memory, bytes"
    )
    max_text_bytes: int = Field(64 * 2**10, ge=1, description="maximum size of the texts of a sample, UTF-8 bytes")
    max_items: int = Field(32, ge=1, description="maximum samples in one request")
    max_image_bytes: int = Field(16 * 2**20, ge=1, description="maximum size of an encoded image, bytes")
    max_image_pixels: int = Field(25_000_000, ge=1, description="maximum size of a decoded image, width × height")
    allow_image_host: Words = Field(
        (), description="hosts from which images may be fetched by URL, separated by commas; none: no URLs"
    )
    image_fetch_seconds: float = Field(
        10.0, gt=0, description="time limit for fetching an image, waiting for its host included, seconds"
    )
    max_fetches: int = Field(
        128, ge=1, description="maximum images being fetched at once; beyond that, none may wait for its host: 429"
    )
    max_fetches_per_host: int = Field(
        16, ge=1, description="maximum images being fetched from one host at once; others wait"
    )

    @field_validator("api_keys", "contrasts", "allow_image_host", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < 8 for key in keys):
            raise ValueError("a key has fewer than 8 characters; generate one with: openssl rand -hex 16")
        return keys

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.contrast not in self.contrasts:
            raise ValueError(
                f"the default contrast {self.contrast!r} is not one of contrasts {list(self.contrasts)}; add it there"
            )
        if self.max_items > self.queue_size:
            raise ValueError(f"max_items={self.max_items} exceeds queue_size={self.queue_size}; lower it")
        self.scorer_config()  # both validate their options
        self.image_fetcher()
        return self

    def image_fetcher(self) -> Fetcher:
        """Create the fetcher of images by URL."""
        return Fetcher(self.allow_image_host, self.max_image_bytes, self.image_fetch_seconds)

    def scorer_config(self) -> ScorerConfig:
        """Create the configuration of the scorer for the default contrast."""
        return ScorerConfig(
            contrast=self.contrast,
            dtype=self.dtype,
            device=self.device,
            device_map=self.device_map,
            tensor_parallel=self.tensor_parallel,
            attention=self.attention,
            quantization=self.quantization,
            adapter=self.adapter,
            compile=self.compile,
            prompt=self.prompt,
            truncate=self.truncate,
            stop_token=self.stop_token,
            contrast_cache_bytes=self.contrast_cache_bytes // len(self.contrasts),
            max_batch_tokens=self.max_batch_tokens,
            # The service refuses longer texts itself; the job's limit keeps fingerprints equal to the job's.
            max_text_bytes=max(self.max_text_bytes, MAX_TEXT_BYTES),
            max_image_bytes=self.max_image_bytes,
            max_image_pixels=self.max_image_pixels,
        )

    @property
    def model_name(self) -> str:
        """The name of the model for clients: a hub id, or the name of a directory without its path."""
        if Path(self.model) == MODEL_PATH:
            return "mini"
        return Path(self.model).resolve().name if Path(self.model).is_dir() else self.model

    def masked(self) -> str:
        """Return all settings as JSON, with keys replaced by asterisks."""
        return json.dumps(self.model_dump(mode="json"))


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a misspelt variable: ``TOKENSIGHT_API_KEY`` must not leave the service open without warning.

    Raises:
        ConfigError: A variable is unknown but similar to a known one; the message names both.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if not name.upper().startswith(PREFIX) or name.upper() in known:
            continue
        near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85)
        if near:
            raise ConfigError(f"the environment variable {name} is unknown; did you mean {near[0]}?")
