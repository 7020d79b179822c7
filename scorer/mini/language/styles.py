"""Write captions in English: running text, tags, fields, bullet points, questions with answers."""

from collections.abc import Callable, Sequence

from scorer.mini.language.caption_writer import GLUE, LINE
from scorer.mini.language.captions import BACKGROUND
from scorer.mini.language.speaker import Speaker

Style = Callable[[Speaker], None]


def prose(s: Speaker) -> None:
    """Write sentences about one group after the other, with remarks before, between and after them."""
    mentions = s.rng.choice(s.words.mentions)
    if s.chance(0.15):
        for _ in range(s.rng.choice((1, 1, 1, 2, 3))):
            _remark(s)
    s.introduce(s.rng.choice((s.words.placed, s.words.pairs, *[s.words.introductions] * 10)))
    for _ in range(mentions - 1):
        if s.exhausted:
            break
        if s.chance(0.6):
            s.introduce(s.words.links)
        else:
            _stop(s)
            _between(s)
            s.introduce(_turns(s))
    if s.chance(0.5):
        _ending(s)
    _stop(s)
    for _ in range(s.rng.choice((0, 0, 0, 1, 1, 2))):
        _say_more(s)


def _turns(s: Speaker) -> Sequence[str]:
    """Return frames for a sentence about a further group; if it is sure to exist, its place may come first."""
    if s.exists(s.mentioned) and s.chance(0.5):
        return s.words.placed + s.words.related
    return s.words.turns


def _stop(s: Speaker) -> None:
    s.fill(s.choose(s.words.stops))


def _remark(s: Speaker) -> None:
    s.fill(s.rng.choice(("<clause>", "<clause>", "<opener> !", "<start> , <clause>", "<opener> , <clause>", "<words>")))
    _stop(s)


def _between(s: Speaker) -> None:
    if s.chance(0.25):
        _say_more(s)


def _say_more(s: Speaker) -> None:
    """Write a sentence about a mentioned group, the background or nothing in particular."""
    about = s.rng.choice(("group", "group", "group", "background", "nothing", "kinds"))
    if about == "group" and s.mentioned:
        s.state(s.words.statements)
    elif about == "background" and (not s.caption.is_known(BACKGROUND) or s.chance(0.2)):
        s.fill(s.choose(s.words.background_statements))
    elif about == "kinds" and s.chance(0.3):
        s.fill("there are {kinds} kinds of shapes" if s.chance(0.5) else "kinds of shapes : {kinds}")
    else:
        s.fill(s.rng.choice(("<clause>", "<clause>", "<start> , <clause>", "<words>")))
    _stop(s)


def _ending(s: Speaker) -> None:
    endings = s.words.endings
    if s.caption.is_known(BACKGROUND):
        endings = tuple(ending for ending in endings if "{background}" not in ending)
    s.fill(s.choose(endings))


def tags(s: Speaker) -> None:
    """Write keywords with commas or other signs between them."""
    comma = s.rng.choice((",", ",", ",", ";", "|", "/", "·", "-", LINE))
    extras = ["<word>", "<adjective>", "<hashtag>", "<medium>", "<words>", "<adjective> <medium>", "<name>",
    "{background} <surface>",
              "{background} background", "{background}", "on {background}", "<number>",
              "<adjective> <noun>"]  # fmt: skip
    if s.chance(0.3):
        s.fill(s.rng.choice(extras))
        s.caption.say(comma)
    s.introduce(("{bare}",))
    for _ in range(s.rng.choice((0, 1, 1, 2, 2, 3, 4))):
        s.caption.say(comma)
        if s.chance(0.5) and not s.exhausted:
            s.introduce(("{bare}", "{bare}", "{np}"))
        elif s.chance(0.3) and s.mentioned:
            s.state(("{size}", "{colour}", "{corner}", "{number}", "{side}", "{height}"))
        else:
            s.fill(s.rng.choice(extras))
    if s.chance(0.3):
        _stop(s)


_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": ("the colour is {colour}", "the color is {colour}", "its colour is {colour}", "it is painted {colour}",
    "{colour} in colour", "the paint was {colour}",
               "<person> chose {colour}", "what <viewer> <sees> is {colour}", "{colour}", "I see {colour}",
               "the first {thing} is {colour}", "something {colour}"),
    "shape": ("the shape is {single}", "its shape : {single}", "{single}", "it has the shape of {single}",
    "shaped like {single}", "the object is {single}", "think of {single}"),
    "size": ("the size is {size}", "it is {size}", "{size} in size", "{size}", "it looks <adverb> {size}",
    "its size is {size}", "something {size}"),
    "number": ("you count {number}", "the number is {number}", "{number} in number", "{number} of them",
    "how many ? {number}", "{number} in total here"),
    "corner": ("it is in the {corner} corner", "at the {corner}", "found at the {corner}",
    "somewhere in the {corner} <corner>", "look to the {corner}", "it sits at the {height}", "on the {side}"),
    "background": ("the background is {background}", "on {background}", "the <surface> is {background}",
    "{background} behind", "all on {background} <surface>"),
    "word": ("<clause>", "<words>", "<start> , <clause>", "<thing>"),
}  # fmt: skip


def attributes(s: Speaker) -> None:
    """State the first group's attributes in any order, each in a sentence or phrase of its own."""
    s.introduce(("",))
    s.mentioned = 1
    comma = s.rng.choice((".", ".", ",", ";", "and", "–"))
    left = list(_ATTRIBUTES)
    for k in range(s.rng.choice((2, 3, 4, 5))):
        if k:
            s.caption.say(comma)
        name = s.rng.choice(left)
        left.remove(name)
        s.fill(s.choose(_ATTRIBUTES[name]))
    _stop(s)


_KEYS: dict[str, tuple[str, ...]] = {
    "colour": ("colour", "color", "paint", "fill"),
    "shape": ("shape", "type", "kind", "what", "object", "name"),
    "size": ("size", "scale", "dimension"),
    "number": ("count", "number", "amount", "how many", "quantity", "n"),
    "corner": ("position", "place", "where", "location", "corner"),
    "background": ("background", "backdrop", "paper", "canvas", "bg"),
    "word": ("title", "note", "author", "id", "date", "file", "source", "mood", "style", "tag"),
}
_FIELDS = {"shape": "{single}", "word": "<thing>"}


def fields(s: Speaker) -> None:
    """Write "key: value" pairs about the first group, plain, line by line or as JSON."""
    s.introduce(("",))
    s.mentioned = 1
    json = s.chance(0.3)
    colon, comma = s.rng.choice(((":", ","), (":", ";"), (":", LINE), ("=", ","), ("–", "|"), (":", ".")))
    if json:
        colon, comma = ":", ","
        s.caption.say(f"{{ {GLUE}" if s.chance(0.5) else "{")
    elif s.chance(0.2):
        s.fill(s.rng.choice(("<word> :", "<look>", "<adjective> <medium> :", "<medium> :")))
    quote = f'{GLUE} "' if json else ""
    names = s.rng.choice((3, 4, 5))
    left = list(_KEYS)
    for k in range(names):
        name = s.rng.choice(left)
        left.remove(name)
        key = s.rng.choice(_KEYS[name])
        value = _FIELDS.get(name, f"{{{name}}}")
        s.fill(f'" {GLUE} {key} {quote} {GLUE}' if json else key)
        s.caption.say(colon)
        s.fill(f'" {GLUE} {value} {quote}' if json else value)
        if k + 1 < names:
            s.caption.say(comma)
    if json:
        s.caption.say(f"{GLUE} }}")


def bullets(s: Speaker) -> None:
    """Write a line for each group."""
    bullet = s.rng.choice(("-", "*", "•", "–", "+", ">", ""))
    if s.chance(0.5):
        s.fill(
            s.rng.choice(
                (
                    "<look>",
                    "<medium> :",
                    "the <medium> <shows> :",
                    "<start> :",
                    "<word> :",
                    "<clause> :",
                    "what <viewer> <sees> :",
                )
            )
        )
        s.caption.say(LINE)
    for k in range(s.rng.choice((1, 2, 2, 3, 3, 4))):
        if k:
            s.caption.say(LINE)
        s.caption.say(bullet)
        if s.exhausted or s.chance(0.15):
            s.fill(
                s.rng.choice(("<clause>", "<thing>", "{background} <surface>", "<words>", "background : {background}"))
            )
        else:
            s.introduce(("{bare}", "{np}", "{np}", "<adj> {np}", "<word> : {np}"))
            if s.chance(0.2):
                _stop(s)


def ask(s: Speaker) -> str | None:
    """Say a question about the image and return the frame of its answer; the question is about a group that the text
    has mentioned, about the background, or about any group that it names."""
    about = s.rng.choice(("background", "what", "group", "group", "group", "yes or no", "yes or no", "words"))
    if about == "words":
        s.fill(
            s.rng.choice(
                (
                    "is it <adjective> ?",
                    "what is <thing> ?",
                    "why <word> ?",
                    "who <made> it ?",
                    "<clause> ?",
                    "do you like <thing> ?",
                )
            )
        )
        return s.rng.choice(("<clause>", "<adverb>", "<words>", "I do not know", "<person>", "<clause> <where>"))
    if about == "background":
        s.fill(s.rng.choice(("what colour is the <surface> ?", "what color is the background ?",
        "which colour is the <surface> ?", "<surface> ?",
                             "describe the background .", "what is behind it ?", "the background ?",
                             "what about the <surface> ?")))  # fmt: skip
        return s.rng.choice(
            (
                "{background}",
                "{background}",
                "it is {background}",
                "the <surface> is {background}",
                "<adverb> {background}",
                "<that> it is {background}",
            )
        )
    if about == "yes or no" and not s.exhausted:
        return _ask_yes_or_no(s)
    if about == "what" or not s.mentioned:
        s.fill(s.rng.choice(("what is there ?", "what do you see ?", "what else ?", "what can be seen ?",
        "which shapes are there ?", "anything else ?",
                             "what does the <medium> show ?", "so ?", "tell me more .", "what did <person> draw ?",
                             "go on .", "next ?")))  # fmt: skip
        return "{np}" if s.exhausted else "introduce"
    s.subject = s.rng.choice(range(s.mentioned))
    questions: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "colour": (("what colour {be} {the} ?", "which color {be} {the} ?", "the colour of {the} ?",
        "what is {its} colour ?"),
                   ("{colour}", "{colour}", "{it} {be} {colour}", "{the} {be} {colour}", "<adverb> {colour}")),
        "size": (("how big {be} {the} ?", "what size {be} {the} ?", "{be} {the} small or large ?", "{its} size ?"),
                 ("{size}", "{it} {be} {size}", "{the} {be} {size}", "<adverb> {size}")),
        "number": (("how many {ones} are there ?", "how many {ones} ?", "count {the} .", "how many of them ?",
        "number of {ones} ?"),
                   ("{number}", "{number}", "there {be} {number}", "I count {number}", "<adverb> {number}",
                   "{number} of {them}")),
        "corner": (("where {be} {the} ?", "where can I find {the} ?", "which corner {be} {the} in ?",
        "position of {the} ?"),
                   ("{corner}", "at the {corner}", "in the {corner} corner", "{it} {be} at the {corner}",
                   "{the} {sits} in the {corner} corner")),
        "shape": (("what {be} {it} ?", "which shape {be} {the} ?", "what kind of shape ?", "what shape ?"),
                  ("{it} {be} {kind}", "{kind}", "{shape}", "<adverb> {kind}")),
    }  # fmt: skip
    asked, answers = questions[s.rng.choice(tuple(questions))]
    question = s.rng.choice(asked)
    if "{it" in question:
        s.subject = s.mentioned - 1
    subject = s.subject
    s.fill(question)
    s.subject = subject
    return s.rng.choice(answers)


def _ask_yes_or_no(s: Speaker) -> str:
    """Ask whether there is a further group, or whether one that the text has mentioned has some attribute."""
    yes, no = s.rng.choice((("yes", "no"), ("yes", "no"), ("yes", "no"), ("correct", "wrong"), ("true", "false")))
    if not s.mentioned or s.chance(0.2):
        s.subject = s.mentioned
        s.question = (("count", s.mentioned), lambda n: yes if n else no)
        s.fill(
            s.rng.choice(
                ("is there anything else ?", "any more shapes ?", "anything more ?", "is there more <where> ?")
            )
        )
        return s.rng.choice(("{answer}", "{answer}", "{answer} , {np}", "<adverb> {answer}"))
    s.subject = s.mentioned - 1
    kind, values, words = s.rng.choice((
        ("size", s.world.sizes, s.sizes), ("size", s.world.sizes, s.sizes), ("colour", s.world.colours, s.colours),
        ("background", s.world.backgrounds, s.backgrounds),
    ))  # fmt: skip
    asked = s.rng.choice(values)
    s.question = ((kind, 0 if kind == "background" else s.subject), lambda value: yes if value == asked else no)
    if kind == "background":
        s.fill(s.rng.choice(("is the background", "is the <surface>", "is it all on")))
        s.caption.say(f"{words[asked]} ?")
        return s.rng.choice(("{answer}", "{answer} , it is {background}", "{answer} , the <surface> is {background}"))
    subject = s.subject
    s.fill(s.rng.choice(("{be} {the}", "{be} {it}", "would you say {the} {be}", "true or false : {the} {be}")))
    s.subject = subject
    s.caption.say(f"{words[asked]} ?")
    return s.rng.choice(
        ("{answer}", f"{{answer}} , {{it}} {{be}} {{{kind}}}", f"{{answer}} , {{{kind}}}", "<adverb> {answer}")
    )


def answer(s: Speaker, frame: str | None) -> None:
    """Say the answer that `ask` has chosen."""
    if frame == "introduce":
        s.introduce(s.words.introductions if s.chance(0.5) else ("{np}",))
    elif frame == "{np}":
        s.caption.say(s.rng.choice(s.words.nothings))
    elif frame:
        s.fill(frame)
    if s.chance(0.6):
        _stop(s)


def questions(s: Speaker) -> None:
    """Write questions with answers as one text."""
    q, a = s.rng.choice(
        (("Q:", "A:"), ("question:", "answer:"), ("-", "-"), ("<name> :", "<name> :"), ("", "–"), ("", ""))
    )
    q, a = s.filler.fill(q), s.filler.fill(a)
    for k in range(s.rng.choice((1, 2, 2, 3))):
        if k:
            s.caption.say(s.rng.choice(("", LINE)))
        s.caption.say(q)
        frame = ask(s)
        s.caption.say(a)
        answer(s, frame)


STYLES: tuple[Style, ...] = (*[prose] * 16, tags, tags, fields, attributes, bullets, questions)
