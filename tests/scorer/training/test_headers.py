"""What a template writes before an answer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from scorer.training import WeightAligner, WeightedText
from scorer.training.headers import template_headers
from tests.scorer import tiny
from tests.scorer.training.rows import row_of
from tests.scorer.training.trainers import BYTE_LEVEL, chatml

CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TURNS = "{% for m in messages %}{{ 'USER: ' if m['role'] == 'user' else ' ASSISTANT: ' }}{{ m['content'] }}{% endfor %}"
BARE = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "headers"),
    [
        (CHATML, {b"assistant"}),
        (TURNS, {b"ASSISTANT:"}),
        (BARE, set()),
        (tiny.CHATML, {b"assistant"}),  # which takes lists of parts
        ("{{ raise_exception('no') }}", set()),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", set()),  # it drops the texts
        (None, set()),
    ],
)
def test_the_header_of_an_answer(template: str | None, headers: set[bytes]) -> None:
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.chat_template = template
    assert template_headers(tokenizer) == headers
    assert template_headers(SimpleNamespace(tokenizer=tokenizer)) == headers  # a processor without one of its own
    assert template_headers(tokenizer.backend_tokenizer) == set()


def test_an_answer_that_is_cut_after_its_header_is_known_by_the_template() -> None:
    text = "A red kite over two boats"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)], True)
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.chat_template = CHATML
    cut = len(ids) - 5
    aligner = WeightAligner(tokenizer, max_length=cut)
    (got,) = aligner([ids[:cut]], [labels[:cut]], [WeightedText(row_of([text], {"red": 5}), [text])])
    assert 5 in got
