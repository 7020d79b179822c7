"""A strict little HTML reader for tests: tags must nest, text comes back unescaped."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "input", "br", "line"}


class Element:
    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Element | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element | str] = []

    def __getitem__(self, name: str) -> str:
        return self.attributes[name] or ""

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        found = []
        for child in self.children:
            if isinstance(child, Element):
                has = all(value in (child.attributes.get(key) or "").split() for key, value in attributes.items())
                found += [child] if child.tag == tag and has else []
                found += child.all(tag, **attributes)
        return found


class Page(HTMLParser):
    """The parsed page; a closing tag that does not fit is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.root = self.at = Element("", {}, None)
        self.feed(self.source)
        self.close()
        assert self.at is self.root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.children.append(Element(tag, dict(attrs), self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag and self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)

    def card(self, sample_id: str) -> Element:
        (found,) = [a for a in self.root.all("article") if a.all("span", **{"class": "id"})[0].text == sample_id]
        return found

    def tokens(self, sample_id: str) -> dict[str, Element]:
        return {token.text: token for token in self.card(sample_id).all("span", **{"class": "t"})}
