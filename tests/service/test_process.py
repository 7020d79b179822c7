"""``python -m service``: start, log, memory under hostile pictures, and its end under load.

The tests of this file share one process, in the order in which they stand; the last one ends it.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.service.helpers import KEY, Answer, encoded, eventually, picture, png, request
from tests.service.process import ROOT, Process, service_process

MIB = 2**20
HEADERS = {"X-API-Key": KEY}
CAPTION = "a caption that nobody's log should hold"


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    with service_process(
        *("--contrasts", "blank", "--max-image-pixels", "4000000", "--batch-wait-ms", "1", "--max-batch-rows", "4"),
        TOKENSIGHT_API_KEYS=f"{KEY},another-key-of-the-tests",
        TOKENSIGHT_REQUIRED_STORES="swift",  # of the tests, and none of ours
    ) as process:
        process.wait_until_ready()
        yield process


def test_it_says_what_it_runs_with_and_masks_the_keys(process: Process) -> None:
    (line,) = [entry for entry in process.log if entry["message"] == "settings"]
    found = json.loads(line["settings"])
    assert found["max_image_pixels"] == 4_000_000
    assert found["api_keys"] == ["**********"] * 2
    assert not any(KEY in line for line in process.lines)


def test_requests_are_logged_by_the_id_that_the_answer_carries(process: Process) -> None:
    given = process.live.send("POST", "/v1/score", request(CAPTION), {**HEADERS, "X-Request-ID": "mine-1"})
    assert (given.headers["x-request-id"], given.json()["request_id"]) == ("mine-1", "mine-1")
    made = process.live.send("GET", "/nowhere?secret=1", headers={**HEADERS, "X-Request-ID": 'a"\tb'})
    eventually(lambda: any(made.headers["x-request-id"] in line for line in process.lines))
    logged = {entry.get("request_id"): entry for entry in process.log if entry["message"] == "request"}
    assert (logged["mine-1"]["status"], logged["mine-1"]["path"]) == (200, "/v1/score")
    assert logged[made.headers["x-request-id"]]["status"] == 404
    assert not any(word in line for line in process.lines for word in (CAPTION, "secret", KEY))


def bomb(side: int) -> bytes:
    """A PNG of side × side pixels that is a thousand times smaller than what it decodes to."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side)).save(stream, "PNG", compress_level=9)
    return stream.getvalue()


def lying_png(side: int) -> bytes:
    """A PNG whose header promises a small picture, and whose data is that of a large one."""
    data = bytearray(bomb(4000))
    header = struct.pack(">II", side, side) + data[24:29]
    data[16:29] = header
    data[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return bytes(data)


def test_bombs_are_refused_within_bounded_memory(process: Process) -> None:
    """13,000 × 13,000 pixels would take 507 MB; the header alone is looked at."""
    pictures = {
        "large": bomb(13_000),
        "lying": lying_png(64),
        "truncated": picture()[:-40],
        "gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0" * 64,
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "text chunks": png(Image.new("RGB", (8, 8)))[:33] + ztxt_bomb() + png(Image.new("RGB", (8, 8)))[33:],
    }
    process.live.send("POST", "/v1/score", request(), HEADERS)
    process.reset_peak()
    before = process.peak_bytes
    answers = {}
    for _ in range(3):
        for name, data in pictures.items():
            body = {"image": encoded(data), "text": "A kite."}
            answers[name] = process.live.send("POST", "/v1/score", body, HEADERS)
    extra = process.peak_bytes - before
    assert answers["large"].json()["code"] == answers["bmp"].json()["code"] == "image_too_large"
    assert answers["truncated"].json()["code"] == answers["gif"].json()["code"] == "image_unreadable"
    assert all(answer.status in (200, 413, 422) for answer in answers.values()), answers
    assert extra < 120 * MIB, f"{extra / MIB:.0f} MiB"


def ztxt_bomb() -> bytes:
    """A text chunk of a few kilobytes that decompresses to 64 MiB."""
    data = b"Comment\0\0" + zlib.compress(b"a" * (64 * MIB), 9)
    return struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))


def test_large_bodies_are_refused_within_bounded_memory(process: Process) -> None:
    """Fifty megabytes, chunked, with and without a key: neither kept nor waited for."""
    process.reset_peak()
    before = process.peak_bytes
    for key, expected in ((KEY, 413), ("wrong", 401)):
        with socket.create_connection(("127.0.0.1", process.live.port), 30) as connection:
            connection.sendall(
                f"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
                "Transfer-Encoding: chunked\r\n\r\n".encode()
            )
            chunk = b"100000\r\n" + b" " * MIB + b"\r\n"
            for _ in range(50):
                connection.sendall(chunk)
                assert process.live.send("GET", "/health/live").status == 200
            connection.sendall(b"0\r\n\r\n")
            assert int(connection.recv(12).split()[1]) == expected
    extra = process.peak_bytes - before
    assert extra < 60 * MIB, f"{extra / MIB:.0f} MiB"


def test_sigterm_finishes_what_was_accepted(process: Process) -> None:
    """Twelve requests are in work; each is answered, nothing new is taken in, and the process ends."""
    answers: list[Answer] = []

    def send(i: int) -> None:
        answers.append(process.live.send("POST", "/v1/score", request("A kite. " * 20, seed=i), HEADERS))

    threads = [threading.Thread(target=send, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    while '"tokensight_in_flight' not in (text := process.live.send("GET", "/metrics").body.decode()):
        if "tokensight_in_flight 12.0" in text or any(not thread.is_alive() for thread in threads):
            break
    process.terminate()
    for thread in threads:
        thread.join(60)
    assert [answer.status for answer in answers] == [200] * 12
    assert process.wait() == 0, "a service that is told to stop ends well"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", process.live.port), 5)
    assert not [entry for entry in process.log if entry["level"] in ("ERROR", "CRITICAL")]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import sys; from service.__main__ import main; sys.exit(main())", *arguments],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_model_that_cannot_be_loaded_ends_the_process(tmp_path: object) -> None:
    done = run("--port", "0", "--model", str(tmp_path))
    assert done.returncode == 1
    *log, last = done.stderr.splitlines()
    assert last.startswith(f"error: model directory {tmp_path} holds no config.json; ")
    assert not [line for line in log if "traceback" in json.loads(line)]


def test_help_names_every_option() -> None:
    from service.settings import Settings

    done = run("--help")
    assert done.returncode == 0
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in done.stdout
