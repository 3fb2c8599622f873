"""The Markdown of the project as data: pages, blocks of code, commands, links, anchors, cells of tables."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md", *DOCS]
_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code; `language` is empty where it is indented or says none."""

    language: str
    text: str
    line: int

    def commands(self) -> list[list[str]]:
        """The words of each command in a block for the shell, continued lines joined, comments left out."""
        if self.language not in ("", "sh", "bash"):
            return []
        found = []
        for line in re.sub(r"\\\n\s*", " ", self.text).splitlines():
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # not for a shell, but a formula or a sample
                continue
            while "|" in words:
                found.append(words[: words.index("|")])
                words = words[words.index("|") + 1 :]
            found.append(words)
        return [words for words in found if words]


def tokens(page: Path) -> Iterator[Token]:
    """All tokens, those within lines too."""
    for token in _MARKDOWN.parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or []


def blocks(page: Path) -> list[Block]:
    """The blocks of code, without Sphinx's directives."""
    return [
        Block(token.info.split()[0] if token.info else "", token.content, token.map[0] + 1)
        for token in tokens(page)
        if token.type in ("fence", "code_block") and not token.info.startswith("{")
    ]


def electra_arguments(words: list[str]) -> list[str] | None:
    """What comes after `electra` in a command, whoever starts it; None if it starts something else, or trails off."""
    if "..." in words:
        return None
    for place, word in enumerate(words):
        started = place == 0 or words[0] == "srun" or words[place - 1] == "-m"
        if word == "electra" and started:
            rest = words[place + 1 :]
            return rest[: next((n for n, part in enumerate(rest) if part in (">", "&&", "&", ">>")), None)]
    return None


def inline_code(page: Path) -> list[str]:
    """The pieces of code within lines."""
    return [token.content for token in tokens(page) if token.type == "code_inline"]


def links(page: Path) -> list[str]:
    """Targets of links and pictures."""
    return [
        str(token.attrGet("href") or token.attrGet("src"))
        for token in tokens(page)
        if token.type in ("link_open", "image")
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, by GitHub's rule."""
    found: list[str] = []
    parsed = _MARKDOWN.parse(page.read_text(encoding="utf-8"))
    for heading, inline in itertools.pairwise(parsed):
        if heading.type == "heading_open":
            text = "".join(child.content for child in inline.children or [])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def rows(page: Path) -> list[list[list[str]]]:
    """The rows of all tables: of each cell the pieces of code."""
    found: list[list[list[str]]] = []
    for token in _MARKDOWN.parse(page.read_text(encoding="utf-8")):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and found and token.level > 2:
            found[-1].append([child.content for child in token.children or [] if child.type == "code_inline"])
    return found
