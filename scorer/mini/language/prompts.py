"""Write the questions that captions answer: plain ones, unusual ones, and some that have nothing to do with them."""

import random

from scorer.mini.language.filler import TRAINING, Filler

PROMPT = "Describe the image."
PLAIN = (
    *(PROMPT for _ in range(14)),
    "Describe the picture.",
    "Describe this image.",
    "What is in the image?",
    "What do you see?",
    "What does the picture show?",
    "Write a caption for the image.",
    "Please describe the scene.",
    "Caption this.",
)
_FREE = (
    "what <viewer> see ?", "describe <thing>", "tell me about the <medium>", "<clause>", "<words>",
    "<opener> , describe the <medium> .", "caption", "",
    "write about the <medium> <where>", "what is on the <medium> ?", "please <word> the <medium>",
    "describe the <adjective> <medium> in detail .",
    "give me a <adjective> caption", "<emoji>", "que vois-tu ?", "décris l’image .", "what did <person> draw ?",
    "list everything .", "explain the <medium> to <name>",
)  # fmt: skip


def any_prompt(rng: random.Random, part: str = TRAINING) -> str:
    """Return a prompt; three in four are plain."""
    if rng.random() < 0.75:
        return rng.choice(PLAIN)
    words = Filler(rng, part).fill(rng.choice(_FREE))
    for mark in ("?", ".", ","):
        words = words.replace(f" {mark}", mark)
    return words if rng.random() < 0.4 else words[:1].upper() + words[1:]
