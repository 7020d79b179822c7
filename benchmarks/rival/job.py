"""The job in vLLM: log-probabilities of captions given their image, and given a blank one.

Runs in vLLM's own environment, where nothing of this repository can be imported, as `python job.py FOLDER SETTINGS`:
loads the model, writes a line to stdout, and answers each line of JSON on stdin by one on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PLAIN = "plain"
"""`prompt_logprobs=0` for every token of both prompts."""
PREFIX = "prefix"
"""The same, but the blank's prompt may be read from the prefix cache; what is returned for it is then undefined."""
FIXED = "fixed"
"""`prompt_logprob_token_ids` from `prompt_logprob_start`: the labels alone, and prefix reads."""
WAYS = (PLAIN, PREFIX, FIXED)


def label_logprobs(returned: Sequence[Any], ids: Sequence[int], labels: Sequence[int]) -> list[float]:
    """Return the labels' log-probabilities from a prompt's ``prompt_logprobs``.

    Args:
        returned: for each position of the prompt, the records of the tokens there by id; the first is None.
        ids: the prompt's ids, with images expanded.
        labels: positions of the labels in ``ids``.

    Raises:
        ValueError: as many positions were not returned, or a label's token is not among those of its position.
    """
    if len(returned) != len(ids):
        raise ValueError(f"vLLM returned {len(returned)} positions for a prompt of {len(ids)} tokens")
    found = []
    for position in labels:
        records = returned[position]
        if records is None or ids[position] not in records:
            raise ValueError(f"vLLM returned no log-probability of token {ids[position]} at position {position}")
        found.append(float(records[ids[position]].logprob))
    return found


def fixed_logprobs(returned: npt.NDArray[np.float32], first: int, labels: Sequence[int]) -> list[float]:
    """Return the labels' log-probabilities from ``prompt_token_id_logprobs``, whose row 0 is position ``first``."""
    return [float(returned[position - first, 0]) for position in labels]


def cpu_seconds() -> float:
    """Return the CPU seconds that this session's processes have used (Linux); vLLM starts several."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a process ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()  # from the third field on
            if int(fields[3]) == os.getsid(0):
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Job:
    """A loaded model and its rows.

    A clean image is new in each round, as in a dataset: its id changes, so that no cache knows it. The blank stays: its
    pixels, its features and, where a way may read it, its prompt are cached before a round is timed.
    """

    def __init__(self, folder: Path, engine: dict[str, Any]) -> None:
        from PIL import Image
        from vllm import LLM, SamplingParams

        self._params: Any = SamplingParams
        self.rows = json.loads((folder / "rows.json").read_text())
        self.images = [Image.open(folder / row["image"]).convert("RGB") for row in self.rows]
        blanks = {image.size: Image.new("RGB", image.size, tuple(self.rows[0]["blank"])) for image in self.images}
        self.blanks = [blanks[image.size] for image in self.images]
        started = time.perf_counter()
        self.llm = LLM(
            model=str(folder / "model"), limit_mm_per_prompt={"image": 1}, disable_log_stats=True, seed=0, **engine
        )
        self.start_seconds = time.perf_counter() - started
        self._pixels_cached = False

    def run(self, way: str, number: int, encoded: bool, rows: int) -> dict[str, Any]:
        """Run the first ``rows`` rows; return seconds, CPU seconds, and the labels' log-probabilities in both branches.

        Args:
            number: the round's number, from which the clean images' ids follow.
            encoded: whether processed pixels may come from vLLM's cache, so that only its engine is timed.
        """
        chosen = range(rows)
        clean = [self._prompt(i, self.images[i], f"{0 if encoded else number}-{i}") for i in chosen]
        blank = [self._prompt(i, self.blanks[i], "blank-{}x{}".format(*self.blanks[i].size)) for i in chosen]
        prompts = [one for pair in zip(clean, blank, strict=True) for one in pair]
        params = [one for i in chosen for one in (self._sampling(way, i, False), self._sampling(way, i, True))]
        if encoded:
            if not self._pixels_cached:
                self._generate(prompts, params)
                self._pixels_cached = True
            self.llm.llm_engine.reset_encoder_cache()
        self.llm.reset_prefix_cache()
        sizes = {image.size: i for i, image in reversed(list(enumerate(self.blanks[:rows])))}
        self._generate([self._without_caption(blank[i], i) for i in sizes.values()], self._params(max_tokens=1))
        started, used = time.perf_counter(), cpu_seconds()
        outputs = self._generate(prompts, params)
        pairs = [self._read(way, i // 2, output) for i, output in enumerate(outputs)]
        spent = {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - used}
        return {**spent, "clean": pairs[::2], "contrast": pairs[1::2]}

    def _generate(self, prompts: list[Any], params: Any) -> list[Any]:
        return list(self.llm.generate(prompts, params, use_tqdm=False))

    def _prompt(self, row: int, image: Any, name: str) -> dict[str, Any]:
        ids = self.rows[row]["prompt"]
        return {
            "prompt_token_ids": ids,
            "multi_modal_data": {"image": image},
            "multi_modal_uuids": {"image": name},
        }

    def _without_caption(self, prompt: dict[str, Any], row: int) -> dict[str, Any]:
        caption = len(self.rows[row]["ids"]) - self.rows[row]["labels"][0]
        return {**prompt, "prompt_token_ids": prompt["prompt_token_ids"][:-caption]}

    def _sampling(self, way: str, row: int, blank: bool) -> Any:
        options: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
        if way != PLAIN and blank:
            options["skip_reading_prefix_cache"] = False
        if way != FIXED:
            return self._params(**options, prompt_logprobs=0, flat_logprobs=True)
        ids, first = self.rows[row]["ids"], self.rows[row]["labels"][0]
        chosen = [[label] for label in ids[first:]]
        return self._params(**options, prompt_logprob_token_ids=chosen, prompt_logprob_start=first - 1)

    def _read(self, way: str, row: int, output: Any) -> list[float]:
        ids, labels = self.rows[row]["ids"], self.rows[row]["labels"]
        if output.prompt_token_ids != ids:
            raise ValueError(f"vLLM made {len(output.prompt_token_ids)} other tokens of row {row}'s {len(ids)}")
        if way == FIXED:
            return fixed_logprobs(output.prompt_token_id_logprobs, labels[0], labels)
        return label_logprobs(output.prompt_logprobs, ids, labels)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM's own lines, and its processes', go to stderr

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    import vllm
    from vllm.exceptions import VLLMClientError

    job = Job(Path(sys.argv[1]), json.loads(sys.argv[2]))
    answer({"vllm": vllm.__version__, "start_seconds": job.start_seconds})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(job.run(**request))
        except VLLMClientError as error:  # this platform does not offer the way
            answer({"refused": str(error)})


if __name__ == "__main__":
    main()
