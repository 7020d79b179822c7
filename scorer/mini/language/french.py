"""Write captions in a small French: a second language, so that figures for one exist."""

from dataclasses import replace
from typing import Any

from scorer.mini.language.captions import BACKGROUND, LAYOUT, relation
from scorer.mini.language.speaker import ENGLISH, Speaker
from scorer.mini.world import GRID, Layout

_NOUNS = {
    "circle": "cercle", "square": "carré", "triangle": "triangle", "star": "étoile", "cross": "croix",
    "ring": "anneau",
    "heart": "cœur",
}  # fmt: skip
_FEMININE = ("star", "cross")
_COLOURS = {
    "red": "rouge", "green": "vert", "blue": "bleu", "yellow": "jaune", "purple": "violet", "pink": "rose",
    "brown": "marron",
}  # fmt: skip
_BACKGROUNDS = {"white": "blanc", "black": "noir", "grey": "gris", "beige": "beige"}
_SIZES = {"small": "petit", "large": "grand"}
_CORNERS = (("en haut à", "en bas à"), ("gauche", "droite"))
_RELATIONS = {
    "left": "à gauche",
    "right": "à droite",
    "above": "au-dessus",
    "below": "en dessous",
    "diagonal": "en diagonale",
}
NOTHINGS = ("rien d’autre", "rien de plus", "aucune autre forme")

INTRODUCTIONS = (
    *["{np}"] * 3, *["il y a {np}"] * 3, "voici {np}", "on voit {np}", "nous voyons {np}", "l’image montre {np}",
    "cette image montre {np}",
    "le dessin montre {np}", "sur l’image , il y a {np}", "dans ce dessin on voit {np}",
    "<fr-person> a dessiné {np}", "<fr-person> a peint {np}",
    "je vois {np}", "regardez {np}", "sur fond {background} , il y a {np}", "<fr-start> , on voit {np}",
    "<fr-start> , {np}", "c’est {np}",
    "<word> : {np}", "<fr-noun> : {np}", "<fr-person> dit qu’il y a {np}", "ici se trouve {np}",
    "à mon avis , c’est {np}", "<word> <word> {np}",
)  # fmt: skip
LINKS = (
    *["et {np}"] * 4, ", {np}", "avec {np}", "ainsi que {np}", "puis {np}", "et aussi {np}", "plus {np}",
    ". on voit aussi {np}", ". il y a aussi {np}",
    "à côté de {np}", ". <fr-start> , il y a {np}", "et , <fr-start> , {np}",
)  # fmt: skip
STATEMENTS = (
    "{the} {be} {colour}", "{the} {be} {size}", "{the} {be} {corner}", "{the} se {find} {corner}",
    "{the} {be} {after} {of-other}",
    "le fond est {background}", "le fond est {background}", "sur fond {background}",
    "le <fr-noun> est <fr-adjective>", "<fr-clause>", "<fr-clause>",
)  # fmt: skip
NOUNS = (
    *["{count} {small} {shape} {colour}"] * 3, *["{count} {shape} {colour}"] * 4, "{count} {shape}",
    "{count} {small} {shape}",
    "{count} {shape} {colour} <fr-adjective>", "{count} {shape} , {colour} ,", "{count} {shape} de couleur {plain}",
)  # fmt: skip
ENDINGS = (
    *[""] * 6,
    "sur fond {background}",
    "sur un fond {background}",
    "sur du papier {background}",
    "<fr-where>",
    ", <fr-clause>",
    "<word>",
)

FRENCH = replace(ENGLISH, orders=())


class FrenchSpeaker(Speaker):
    """Say things in French. Articles and adjectives agree with a noun that may follow them, and so tell its shape."""

    def _gender(self, shape: str | None, masculine: str, feminine: str) -> str:
        return feminine if shape in _FEMININE else masculine

    def _together(self, wording: Any) -> None:
        i = self.subject
        self.caption.tell_together((("count", i), ("shape", i)), wording)
        self._agree()

    def _inflected(self, word: str, shape: str | None, count: int) -> str:
        """Return an adjective as it agrees with a shape; `word` is masculine and singular."""
        if word == "marron":
            return word
        if shape in _FEMININE and not word.endswith("e"):
            word = {"violet": "violette"}.get(word, word + "e")
        return word + "s" * (count > 1 and not word.endswith("s"))

    def _np(self) -> None:
        self.subject = i = self.mentioned
        self.nothing = self.rng.choice(NOTHINGS) if not self.exists(i) else ""
        self.mentioned = i + 1
        self.fill(self.rng.choice(NOUNS))
        if not self.exhausted and self.chance(0.3):
            self.fill("{corner}")

    def _count(self) -> None:
        i = self.subject
        digits = {2: "2", 3: "3"} if self.chance(0.15) else {2: "deux", 3: "trois"}

        def wording(n: int, shape: str | None) -> str:
            return self.nothing if n == 0 else self._gender(shape, "un", "une") if n == 1 else digits[n]

        if self.exists(i):
            self._together(wording)
            return
        # A group that may not exist has no shape yet: first say whether there is one.
        if not self.caption.ask(("count", i), lambda n: n > 0):
            self._agree()
            self.caption.say(self.nothing)
            self.mentioned = i
            self._cut = True
            self._end_of_groups()
            return
        self._agree()
        self._together(wording)

    def _small(self) -> None:
        i = self.subject
        facts = (("size", i), ("shape", i), ("count", i))
        self.caption.tell_together(facts, lambda size, shape, n: self._inflected(_SIZES[size], shape, n))
        self.stated[i].add("size")

    def _size(self) -> None:
        self._small()

    def _shape(self) -> None:
        def wording(count: int, shape: str) -> str:
            return _NOUNS[shape] + ("" if count == 1 or shape == "cross" else "x" if shape == "ring" else "s")

        # "Croix" is the same in the singular and the plural.
        self._together(wording)
        self.stated[self.subject].add("shape")

    def _colour(self) -> None:
        i = self.subject
        facts = (("colour", i), ("shape", i), ("count", i))
        self.caption.tell_together(facts, lambda colour, shape, n: self._inflected(_COLOURS[colour], shape, n))
        self._named_colour(i)

    def _plain(self) -> None:
        """Say the colour without agreement, after "de couleur"."""
        self.caption.tell(("colour", self.subject), lambda colour: _COLOURS[colour])
        self._named_colour(self.subject)

    def _named_colour(self, i: int) -> None:
        self.stated[i].add("colour")
        for other in range(len(self.stated)):
            if other != i:
                self.caption.rule_out(("colour", other), self.caption.value(("colour", i)))

    def _the(self) -> None:
        self._mention(self.subject)

    def _mention(self, i: int) -> None:
        self.subject = i
        self._together(
            lambda n, shape: (
                "les" if n > 1 else "l’ ~" if shape in ("star", "ring") else self._gender(shape, "le", "la")
            )
        )
        self.fill("{shape} {colour}" if "colour" in self.stated[i] else "{shape}")

    def _be(self) -> None:
        self._agreeing("est", "sont")

    def _find(self) -> None:
        self._agreeing("trouve", "trouvent")

    def _background(self) -> None:
        self.caption.tell(BACKGROUND, lambda background: _BACKGROUNDS[background])

    def _corner(self) -> None:
        i = self.subject

        def wording(layout: Layout) -> str:
            row, column = divmod(layout[i], GRID)
            return f"{_CORNERS[0][row]} {_CORNERS[1][column]}"

        self._tell(LAYOUT, wording)

    def _after(self) -> None:
        here, there = self.subject, self.other
        self._tell(LAYOUT, lambda layout: _RELATIONS[relation(layout[here], layout[there])])

    def _of_other(self) -> None:
        subject, self.subject = self.subject, self.other
        self._together(
            lambda n, shape: (
                "des" if n > 1 else "de l’ ~" if shape in ("star", "ring") else self._gender(shape, "du", "de la")
            )
        )
        self.fill("{shape} {colour}" if "colour" in self.stated[self.other] else "{shape}")
        self.subject = subject


def prose(s: Speaker) -> None:
    """Let a `FrenchSpeaker` write sentences about some of the groups."""
    mentions = s.rng.choice(s.words.mentions)
    if s.chance(0.15):
        s.fill("<fr-clause> .")
    s.introduce(INTRODUCTIONS)
    for _ in range(mentions - 1):
        if s.exhausted:
            break
        s.introduce(LINKS)
    endings = [ending for ending in ENDINGS if not (s.caption.is_known(BACKGROUND) and "{background}" in ending)]
    s.fill(s.rng.choice(endings))
    s.fill(s.rng.choice((".", ".", ".", "!", "")))
    for _ in range(s.rng.choice((0, 0, 1, 2))):
        statement = s.rng.choice(STATEMENTS)
        s.subject = s.rng.choice(range(s.mentioned))
        others = [i for i in range(s.mentioned) if i != s.subject]
        slots = {"{colour}": "colour", "{size}": "size"}
        repeated = any(slot in statement and kind in s.stated[s.subject] for slot, kind in slots.items())
        unnamed = "{the}" in statement and "shape" not in s.stated[s.subject]
        known = "{background}" in statement and s.caption.is_known(BACKGROUND)
        if repeated or unnamed or known or ("{of" in statement and not others):
            statement = "<fr-clause>"
        if others:
            s.other = s.rng.choice(others)
        s.fill(statement.replace("of-other", "of_other"))
        s.fill(".")
