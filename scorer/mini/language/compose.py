"""Write captions and dialogues in the packaged model's language."""

import random
from typing import Any

from scorer.mini.language import french
from scorer.mini.language.caption_writer import CONTRADICTORY, Facts
from scorer.mini.language.captions import LAYOUT, Caption, falsified
from scorer.mini.language.filler import TRAINING
from scorer.mini.language.speaker import Speaker
from scorer.mini.language.styles import STYLES, answer, ask
from scorer.mini.language.surface import Surface, any_surface
from scorer.mini.world import Scene, World

ENGLISH, FRENCH = "English", "French"
TONGUES = (*[ENGLISH] * 13, FRENCH)


def compose(
    scene: Scene,
    rng: random.Random,
    *,
    false: Facts | None = None,
    part: str = TRAINING,
    tongue: str | None = None,
    surface: Surface | None = None,
) -> Caption:
    """Write a caption of `scene` in any style, which states the facts in `false` as given, whatever the image shows.

    Facts are about groups in the order of mention, which is not known beforehand. Without `tongue` and `surface` these
    are drawn, too. `part`: whether words and frames are those of training or those kept from it.
    """
    tongue = tongue or rng.choice(TONGUES)
    surface = surface or any_surface(rng)
    if tongue == FRENCH:
        speaker: Speaker = french.FrenchSpeaker(
            scene, rng, false=false, part=part, words=french.FRENCH, surface=surface
        )
        french.prose(speaker)
    else:
        style = rng.choice(STYLES)
        speaker = Speaker(scene, rng, false=false, part=part, surface=surface)
        style(speaker)
    caption = speaker.caption
    return Caption(caption.text, tuple(caption.spans), next((kind for kind, _ in false or {}), None))


def compose_false(scene: Scene, rng: random.Random, *, attempts: int = 500, **options: Any) -> Caption:
    """Write a caption with exactly one word that the image contradicts; see `captions.write_false`.

    Raises:
        RuntimeError: no such caption was found in `attempts` tries.
    """
    world = World()
    for _ in range(attempts):
        fact, value = falsified(scene, rng, world)
        if fact == LAYOUT:
            value = tuple(rng.sample(value, len(value)))
        caption = compose(scene, rng, false={fact: value}, **options)
        if sum(span.label == CONTRADICTORY for span in caption.spans) == 1:
            return caption
    raise RuntimeError(f"found no caption of {scene} with one false word in {attempts} attempts")


def converse(scene: Scene, rng: random.Random, *, turns: int, part: str = TRAINING) -> list[tuple[str, Caption]]:
    """Write `turns` questions about `scene` and their answers; what earlier ones have stated is known."""
    speaker = Speaker(scene, rng, part=part, surface=any_surface(rng))
    dialogue = []
    for _ in range(turns):
        question, frame = speaker.section(lambda: ask(speaker))
        reply, _ = speaker.section(lambda frame=frame: answer(speaker, frame))  # type: ignore[misc]
        dialogue.append((question.text, reply))
    return dialogue
