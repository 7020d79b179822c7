"""Score one sample: get its image, encode it in a pool, run the model in its thread, build the response.

Nothing here blocks the event loop: decoding, encoding and fetching run in pools, and the model in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import gc
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, TypeVar

from scorer.errors import ConfigError, FailureCode, RowError
from scorer.fetching.fetcher import Fetcher
from scorer.messages import parse_conversation
from scorer.results import Failure
from scorer.types import EncodedSample, Sample
from scorer.weighting.parameters import Value
from scorer.weights import Method
from service import responses
from service.batcher import Batcher
from service.bodies import RequestImage, ScoreCall
from service.fetches import Fetches
from service.limits import Admission, PendingBytes, busy
from service.metrics import Metrics
from service.pending import DeadlinePassedError, NotReadyError, QueueFullError, Scored
from service.problems import ProblemError, of_row
from service.schemas import ScoringOptions
from service.scorer_pool import ScorerPool
from service.settings import Settings

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_WINDOW: Final = 1001
"""Maximum value of a parameter that counts tokens."""
_POLL_SECONDS: Final = 0.05
_PARSE_THREADS: Final = 2
_DATA_URL: Final = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


class ScoringService:
    """The state shared by the routes: model, queue, limits, pools and metrics.

    Args:
        load: Loads the model described by the settings.
        on_ready: Called once the model is loaded.
        on_death: Called if the model's thread ends unexpectedly.
        fetcher: Fetches images by URL; by default, from the hosts in the settings.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[Settings], ScorerPool] = ScorerPool.load,
        on_ready: Callable[[], None] | None = None,
        on_death: Callable[[BaseException], None] | None = None,
        fetcher: Fetcher | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._load = load
        self._models: ScorerPool | None = None
        self.batcher = Batcher(
            self._load_models,
            self.metrics,
            capacity=settings.queue_size,
            max_rows=settings.max_batch_rows,
            wait_seconds=settings.batch_wait_ms / 1e3,
            heartbeat_seconds=settings.heartbeat_seconds,
            on_ready=on_ready,
            on_death=on_death,
        )
        self.admission = Admission(settings.queue_size, lambda: self.batcher.expected_wait, self.metrics)
        self.pending_bytes = PendingBytes(settings.max_pending_bytes, self.metrics)
        self.fetches = Fetches(
            fetcher or settings.image_fetcher(),
            settings.max_fetches,
            settings.max_fetches_per_host,
            self.pending_bytes,
            self.metrics,
        )
        self._encode_pool = ThreadPoolExecutor(settings.encode_threads or _default_encode_threads(), "encode")
        self._parse_pool = ThreadPoolExecutor(_PARSE_THREADS, "parse")
        self.metrics.queue_depth.set_function(lambda: self.batcher.depth)
        self.metrics.in_flight.set_function(lambda: self.admission.in_flight)
        self.metrics.ready.set_function(lambda: float(self.batcher.why_not_ready() is None))

    def start(self) -> None:
        """Start loading the model, without waiting for it."""
        self.batcher.start()

    async def until_ready(self) -> None:
        """Wait until the model is loaded. Raises RuntimeError if loading fails."""
        while self.batcher.is_loading:
            await asyncio.sleep(_POLL_SECONDS)
        why = self.batcher.why_not_ready()
        if why is not None:
            raise RuntimeError(f"model {self.settings.model}: {why}")

    async def stop(self) -> None:
        """Answer accepted requests, then end all threads."""
        await asyncio.to_thread(self.batcher.stop, self.settings.drain_seconds)
        self.fetches.shutdown()
        for pool in (self._encode_pool, self._parse_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def _load_models(self) -> ScorerPool:
        self._models = self._load(self.settings)
        # A full collection visits every object of torch and transformers and blocks all requests: freeze them.
        gc.collect()
        gc.freeze()
        return self._models

    def check_ready(self) -> None:
        """Raise ProblemError 503 if samples cannot be scored now."""
        why = self.batcher.why_not_ready()
        if why is not None:
            raise _not_ready(why)

    @property
    def models(self) -> ScorerPool:
        """The scorers. Raises ProblemError 503 until the model is loaded."""
        if self._models is None:
            raise _not_ready("the model is being loaded")
        return self._models

    async def parse(self, work: Callable[[], T]) -> T:
        """Run parsing that would block the event loop for too long."""
        return await asyncio.get_running_loop().run_in_executor(self._parse_pool, work)

    async def score(self, call: ScoreCall, request_id: str, arrived: float) -> dict[str, Any]:
        """Score one sample.

        Args:
            arrived: Arrival time of the request on the ``time.monotonic`` clock; the deadline counts from it.

        Raises:
            ProblemError: The sample could not be scored.
        """
        models = self.models
        options = call.options
        contrasts = _contrasts(options, models.contrasts)
        method = make_method(options.method, options.method_params)
        self._check_texts(options)
        deadline = arrived + self.settings.request_seconds
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                sample, row = await self._encode(models, call, contrasts, deadline)
                scored = await asyncio.wrap_future(self.batcher.submit(row, contrasts, deadline))
        except (TimeoutError, DeadlinePassedError):
            self.metrics.rejects.labels("deadline").inc()
            limit = self.settings.request_seconds
            raise ProblemError(
                504, "deadline", f"not finished within request_seconds={limit:g}; try again later"
            ) from None
        except QueueFullError as error:
            self.metrics.rejects.labels("queue_full").inc()
            raise busy(str(error), self.batcher.expected_wait) from None
        except NotReadyError as error:
            raise _not_ready(str(error)) from None
        except RowError as error:
            raise self._failed(error.code, error.message) from None
        return self._document(scored, sample, method, options, contrasts, request_id, arrived)

    def _document(
        self,
        scored: Scored,
        sample: Sample,
        method: Method,
        options: ScoringOptions,
        contrasts: tuple[str, ...],
        request_id: str,
        arrived: float,
    ) -> dict[str, Any]:
        result = scored.result
        if isinstance(result, Failure):
            raise self._failed(result.code, result.message)
        self.metrics.tokens.inc(len(result.token_ids))
        return {
            "request_id": request_id,
            "model": self.settings.model_name,
            "fingerprint": self.models.fingerprint(contrasts),
            "contrast": contrasts[0],
            "further_contrasts": contrasts[1:],
            **responses.score_document(result, sample.scored_texts, method, options.parts),
            "timing": {
                "queue_ms": round(1e3 * scored.queue_seconds, 3),
                "engine_ms": round(1e3 * scored.engine_seconds, 3),
                "total_ms": round(1e3 * (time.monotonic() - arrived), 3),
            },
        }

    async def _encode(
        self, models: ScorerPool, call: ScoreCall, contrasts: tuple[str, ...], deadline: float
    ) -> tuple[Sample, EncodedSample]:
        loop = asyncio.get_running_loop()
        image = call.image
        async with AsyncExitStack() as fetched:
            if image.in_json is not None and image.in_json.url is not None:
                data = await fetched.enter_async_context(self.fetches.image(image.in_json.url))
                image = RequestImage(uploaded=data)
            encode = partial(_encode, models, image, call.options, contrasts, deadline)
            # A client that leaves cancels this future, and the pool does not begin what is cancelled.
            return await loop.run_in_executor(self._encode_pool, encode)

    def _check_texts(self, options: ScoringOptions) -> None:
        texts = [options.text or "", options.prompt or ""]
        for message in options.messages or ():
            content = message.content
            texts += [content] if isinstance(content, str) else [part.text for part in content if part.type == "text"]
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        if size > self.settings.max_text_bytes:
            raise self._failed(
                FailureCode.TEXT_TOO_LONG,
                f"the texts have {size} bytes, more than max_text_bytes={self.settings.max_text_bytes}; shorten them",
            )

    def _failed(self, code: FailureCode, message: str) -> ProblemError:
        self.metrics.failures.labels(code.value).inc()
        return of_row(code, message)


def _default_encode_threads() -> int:
    """Return one thread per four cores: encoding mostly holds the GIL, so each thread delays the event loop."""
    return max(1, len(os.sched_getaffinity(0)) // 4)


def _contrasts(options: ScoringOptions, served: tuple[str, ...]) -> tuple[str, ...]:
    """Return the contrasts of a request, the first one and the further ones in the order in which they are served.

    Raises:
        ProblemError: 422 if one is not served, or is named twice. The default one comes first in ``served``.
    """
    first = options.contrast or served[0]
    named = [first, *options.further_contrasts]
    for name in named:
        if name not in served:
            choices = ", ".join(served)
            raise ProblemError(422, "contrast_unknown", f"the contrast {name!r} is not served; choose one of {choices}")
        if named.count(name) > 1:
            raise ProblemError(
                422,
                "contrast_repeated",
                f"the contrast {name!r} is named twice, as one of {', '.join(named)}; name each contrast once in "
                "contrast (default: the server's) and further_contrasts",
            )
    return (first, *sorted(options.further_contrasts, key=served.index))


def make_method(name: str, params: Mapping[str, Value]) -> Method:
    """Return a weighting method. Raises ProblemError 422."""
    try:
        method = Method(name, params)
    except ConfigError as error:
        raise ProblemError(422, "method_invalid", str(error)) from None
    if method.needs_gaps:
        own = method.record.of_dataset[0]
        raise ProblemError(422, "method_invalid", f"{method.missing_gaps}, and a request has one sample; set {own}")
    for parameter in method.record.parameters:
        value = method.params[parameter.name]
        if (
            parameter.unit == "tokens" and isinstance(value, (int, float)) and value > MAX_WINDOW
        ):  # its cost grows with it
            raise ProblemError(
                422,
                "method_invalid",
                f"method {method.name!r}: {parameter.name} is {value}; over HTTP it is at most {MAX_WINDOW} tokens",
            )
    return method


def _encode(
    models: ScorerPool, image: RequestImage, options: ScoringOptions, contrasts: tuple[str, ...], deadline: float
) -> tuple[Sample, EncodedSample]:
    """Encode one sample; runs in the pool. Raises RowError, and DeadlinePassedError for a sample that waited too long.

    The deadline cancels what waits, but a busy event loop does so late.
    """
    if time.monotonic() >= deadline:
        raise DeadlinePassedError("the deadline passed before the sample was encoded")
    sample = _sample(options, _image_bytes(image), models.settings.prompt)
    try:
        return sample, models.encoder(contrasts).encode(sample)
    except (RowError, OSError, MemoryError):  # caused by the sample, or by the machine
        raise
    except Exception as error:
        logger.exception("the encoder raised")
        reason = f"the encoder raised {type(error).__name__} on this sample; change the sample"
        raise RowError(FailureCode.SCORING_FAILED, reason) from error


def _sample(options: ScoringOptions, image: bytes, prompt: str) -> Sample:
    if options.messages is None:
        return Sample.caption("request", image, options.text or "", options.prompt or prompt)
    messages = [message.model_dump() for message in options.messages]
    return parse_conversation("request", [image], messages)


def _image_bytes(image: RequestImage) -> bytes:
    if image.uploaded is not None:
        return image.uploaded
    assert image.in_json is not None
    if image.in_json.base64 is not None:
        return _decoded(image.in_json.base64, "image.base64")
    url = image.in_json.data_url or ""
    head = _DATA_URL.match(url)
    if head is None:
        raise RowError(
            FailureCode.IMAGE_UNREADABLE, "image.data_url does not begin with 'data:…;base64,'; encode it in base64"
        )
    return _decoded(url[head.end() :], "image.data_url")


def _decoded(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RowError(
            FailureCode.IMAGE_UNREADABLE,
            f"{name} is not base64 ({error}); use the standard alphabet with padding and without line breaks",
        ) from None


def _not_ready(why: str) -> ProblemError:
    return ProblemError(503, "not_ready", f"{why}; try again later", {"Retry-After": "5"})
