"""What is wrong with a built site: links that lead nowhere, pictures without words, and what would be fetched."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """The anchors, links, pictures and parts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.parts: list[str] = []
        self.bare: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given[key] or "" for key in ("id", "name") if key in given}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if tag in FETCHED and given.get(FETCHED[tag]) and given.get("rel") != "canonical":
            self.parts.append(given[FETCHED[tag]] or "")
        if tag == "img" and not given.get("alt"):
            self.bare.append(given.get("src") or "")


def faults(site: Path) -> Iterator[str]:
    """One line for each."""
    for path in sorted(site.rglob("*.css")):
        for place in re.findall(
            r"(?:@import|url\()[\s\"'(url]*((?:https?:)?//[^\"')]+)", path.read_text(encoding="utf-8")
        ):
            yield f"{path.relative_to(site)}: {place} would be fetched from elsewhere"
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} holds no page"
    for path, page in pages.items():
        name = path.relative_to(site)
        for picture in page.bare:
            yield f"{name}: the picture {picture[:80]} has no alt text"
        for part in page.parts:
            if urlsplit(part).scheme not in ("", "data") or part.startswith("//"):
                yield f"{name}: {part} would be fetched from elsewhere"
        for link in page.links + page.parts:
            if _leads_nowhere(link, path, site, pages):
                yield f"{name}: {link} leads nowhere"


def _leads_nowhere(link: str, path: Path, site: Path, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    place = unquote(parts.path)
    target = (site / place.lstrip("/") if place.startswith("/") else path.parent / place).resolve() if place else path
    if target.is_dir():
        target = target / "index.html"
    anchor = unquote(parts.fragment)
    if target not in pages:
        return not target.exists()
    return bool(anchor) and anchor != "__tabbed" and anchor not in pages[target].anchors
