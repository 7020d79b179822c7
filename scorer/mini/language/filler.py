"""Write words that say nothing about a scene: sentences of common words, unknown words, names, numbers and dates."""

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from zlib import crc32

from scorer.mini.language import filler_english, filler_french

TRAINING, RESERVED = "training", "reserved"
"""The parts into which long lists of words and phrases are divided; a model never sees the second in training."""

WORD_LIST = Path(__file__).with_name("words.txt")

_MADE_UP = """
    ba be bi bo bra che da del dro du el en fa fi flo ga gle gra ha hi jo ka ki klo la le lo lu ma me mi mo mu na ne no
    nu ol or pa pe pla po qua ra re ri ro sa se shi si sko so sta su ta te ti to tra tu un va ve vi wo xa ya za zi zo
"""
_SIGNS = "😀 🎨 🖼️ ✨ 👍 🔥 🙂 📷 ❓ 👀 🎉 🌍 ☕ 🚀 🐱 🌳 🎵 💡 📌 ✅ → • © ½ %"
_OF_A_YEAR = "January February March April May June July August September October November December"
_SYLLABLES, _EMOJI, _MONTHS = (tuple(words.split()) for words in (_MADE_UP, _SIGNS, _OF_A_YEAR))
_SCRIPTS = (
    (0x3B1, 0x3C9), (0x430, 0x44F), (0x5D0, 0x5EA), (0x627, 0x64A), (0x905, 0x939), (0x3042, 0x3093), (0x4E00, 0x5000),
    (0xAC00, 0xAD00), (0xE0, 0xF6),
)  # fmt: skip
"""Ranges of letters: Greek, Cyrillic, Hebrew, Arabic, Devanagari, Japanese, Chinese, Korean, accented Latin."""


def share(alternatives: Sequence[str], part: str) -> tuple[str, ...]:
    """Return the part of a list that belongs to `part`; short lists belong to both."""
    if len(alternatives) < 12:
        return tuple(alternatives)
    held = tuple(word for word in alternatives if _is_held(word))
    kept = tuple(word for word in alternatives if not _is_held(word))
    return (*held, *(word for word in alternatives if not word)) if part == RESERVED and held else kept


def _is_held(word: str) -> bool:
    return bool(word) and crc32(word.encode()) % 8 == 0


@cache
def word_list(part: str) -> tuple[str, ...]:
    return share(WORD_LIST.read_text(encoding="utf-8").split(), part)


@cache
def _lists(part: str) -> Mapping[str, tuple[str, ...]]:
    words = {**filler_english.WORDS, **filler_french.WORDS}
    listed = {name: [word.replace("|", " ") for word in group.split()] for name, group in words.items()}
    phrases = {**filler_english.PHRASES, **filler_french.PHRASES}
    return {name: share(alternatives, part) for name, alternatives in {**listed, **phrases}.items()}


class Filler:
    """Fill `<name>` in templates, from the words of one `part` and by one generator."""

    def __init__(self, rng: random.Random, part: str = TRAINING) -> None:
        self.rng, self.part = rng, part
        self._lists = _lists(part)

    def fill(self, template: str) -> str:
        """Return `template` with every `<name>` replaced, also those in what replaces one."""
        while "<" in template:
            template = re.sub(r"<([a-z-]+)>", lambda found: self.one(found[1]), template)
        return template

    def one(self, name: str) -> str:
        """Return an alternative of `name`, unfilled.

        Raises:
            KeyError: there is no such name.
        """
        made = getattr(self, f"_{name}", None)
        return made() if made else self.rng.choice(self._lists[name])

    def _word(self) -> str:
        drawn = self.rng.random()
        if drawn < 0.7:
            return self.rng.choice(word_list(self.part))
        if drawn < 0.85:
            return self._pseudo()
        return self.rng.choice(
            (self._number, self._code, self._hashtag, self._emoji, self._foreign, lambda: self.one("name"))
        )()

    def _adj(self) -> str:
        """Return an adjective for a noun phrase; often one that has not been seen there."""
        return self.rng.choice((lambda: self.one("adjective"), lambda: self.one("adjective"), self._plain_word))()

    def _plain_word(self) -> str:
        return self._pseudo() if self.rng.random() < 0.3 else self.rng.choice(word_list(self.part))

    def _pseudo(self) -> str:
        return "".join(self.rng.choice(_SYLLABLES) for _ in range(self.rng.choice((2, 2, 3, 3, 4))))

    def _number(self) -> str:
        """Return a number of two or more digits: smaller ones are for counts."""
        rng = self.rng
        return rng.choice((
            lambda: str(rng.randint(10, 99)),
            lambda: str(rng.randint(100, 9999)),
            lambda: f"{rng.randint(10, 99)}.{rng.randint(0, 99)}",
            lambda: f"{rng.randint(10, 99)}%",
            lambda: f"{rng.randint(10, 99)},{rng.randint(100, 999)}",
        ))()  # fmt: skip

    def _code(self) -> str:
        rng = self.rng
        stem = rng.choice(("IMG_", "DSC", "no.", "v", "x", "A", "scene-", "pic", "#", "ID"))
        return f"{stem}{rng.randint(10, 99999)}{rng.choice(('', '', '.png', '.jpg'))}"

    def _year(self) -> str:
        return str(self.rng.randint(1850, 2040))

    def _date(self) -> str:
        rng = self.rng
        return rng.choice((
            lambda: f"{rng.randint(10, 28)} {rng.choice(_MONTHS)} {self._year()}",
            lambda: f"{rng.choice(_MONTHS)} {rng.randint(10, 28)}",
            lambda: f"{self._year()}-{rng.randint(10, 12)}-{rng.randint(10, 28)}",
            lambda: f"{rng.randint(10, 28)}/{rng.randint(10, 12)}/{self._year()}",
        ))()  # fmt: skip

    def _clock(self) -> str:
        return f"{self.rng.randint(10, 23)}:{self.rng.randint(10, 59)}"

    def _hashtag(self) -> str:
        return "#" + self.rng.choice(word_list(self.part))

    def _emoji(self) -> str:
        return self.rng.choice(_EMOJI)

    def _foreign(self) -> str:
        """Return a made-up word in one of several scripts."""
        first, last = self.rng.choice(_SCRIPTS)
        return "".join(chr(self.rng.randint(first, last)) for _ in range(self.rng.randint(2, 6)))

    def _url(self) -> str:
        start, end = self.rng.choice(("https://", "www.", "")), self.rng.choice(("com", "org", "net", "io"))
        return f"{start}{self._pseudo()}.{end}"
