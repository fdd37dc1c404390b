"""What the site has beside its pages: maths as MathML, notebooks, links between names; and the check of the whole.

Nothing that is built is fetched from elsewhere, when it is built or when it is read.
"""

import html
import logging
import re
from base64 import b64decode
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
from check import faults
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
REPOSITORY_PAGES = {  # pages whose source is not in docs/
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
    "benchmarks.md": "bench/README.md",
    "results.md": "bench/results/README.md",  # where `python -m bench` has been run
}
log = logging.getLogger("mkdocs.hooks.attrfn")


# ---------------------------------------------------------------- pages that are written


def on_config(config: Any) -> None:
    """Put the notebooks, and the results of the benchmarks, into the navigation."""
    for section in config.nav:
        if "Contributing" in section and "results.md" in repository_pages():
            section["Contributing"].append({"Results of benchmarks": "results.md"})
        if "Notebooks" in section:
            section["Notebooks"] += [{_title(path): f"notebooks/{path.stem}.md"} for path in notebooks()]


def on_files(files: Files, config: Any) -> None:
    for name, source in repository_pages().items():
        files.append(File.generated(config, name, content=_moved(source)))
    for path in plots():
        files.append(File.generated(config, f"bench/{path.name}", content=path.read_bytes()))
    for path in notebooks():
        text, pictures = page(nbformat.read(path, as_version=4), path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))


def repository_pages() -> dict[str, Path]:
    return {name: ROOT / source for name, source in REPOSITORY_PAGES.items() if (ROOT / source).exists()}


def plots() -> list[Path]:
    return sorted((ROOT / "bench/results").glob("*.png"))


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def _title(path: Path) -> str:
    first = nbformat.read(path, as_version=4).cells[0].source.partition("\n")[0]
    return first.lstrip("# ")


def _moved(path: Path) -> str:
    """A page of the repository, its links to pages of the site put right, others named and not linked."""
    places = {source.resolve(): name for name, source in repository_pages().items()}
    places |= {p.resolve(): f"bench/{p.name}" for p in plots()}
    places |= {p.resolve(): f"notebooks/{p.stem}.md" for p in notebooks()}
    places |= {p.resolve(): p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.*")}

    def moved(match: re.Match[str]) -> str:
        words, link = match[1], match[2]
        if ":" in link or link.startswith("#"):
            return match[0]
        target, _, anchor = link.partition("#")
        place = places.get((path.parent / target).resolve())
        return words if place is None else f"[{words}]({place}{anchor and '#' + anchor})"

    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", moved, path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------- notebooks


def page(notebook: NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, as it was stored: nothing is run. And its pictures."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", cell.source).replace("](../docs/", "](../"))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for place, output in enumerate(cell.outputs):
            picture = f"{name}_{cell.id}{place or ''}.png"
            parts.append(_shown(output, cell, picture, pictures))
    return "\n\n".join(parts), pictures


def _shown(output: NotebookNode, cell: NotebookNode, picture: str, pictures: dict[str, bytes]) -> str:
    """An output: a picture with its words, HTML as it is, or text."""
    if output.output_type == "stream":
        return _text(output.text)
    data = output.get("data", {})
    if "image/png" in data:
        pictures[picture] = b64decode(data["image/png"])
        return f"![{cell.metadata.get('alt', '')}]({picture})"
    if "text/html" in data:
        return f'<div class="output">\n{_one_line(data["text/html"])}\n</div>'
    return _text(data.get("text/plain", "\n".join(output.get("traceback", []))))


def _text(text: str) -> str:
    return f"```{{.text .output}}\n{text.rstrip()}\n```"


def on_page_markdown(text: str, page: Any, config: Any, files: Files) -> str:
    """Put a notebook cell's output where `<!-- output of NOTEBOOK: CELL -->` stands; link notebooks to their pages."""
    text = re.sub(r"<!-- output of (\w+): (\S+) -->", _output, text)
    return re.sub(r"\]\(\.\./notebooks/(\w+)\.ipynb\)", r"](notebooks/\1.md)", text)


def _output(match: re.Match[str]) -> str:
    notebook = nbformat.read(ROOT / "notebooks" / f"{match[1]}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.id == match[2] and cell.outputs:
            return _shown(cell.outputs[0], cell, "", {})
    log.warning("notebook %s has no output of a cell %s", match[1], match[2])
    return ""


def _one_line(markup: str) -> str:
    """HTML without the blank lines at which Markdown would take over."""
    return re.sub(r"\n\s*", " ", markup)


# ---------------------------------------------------------------- what pages show


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    content = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', _maths, content, flags=re.DOTALL)
    content = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>', content)
    return re.sub(r"(<a [^>]*>)?<code>([\w.]+)(\([^<]*\))?</code>", lambda match: _named(match, page), content)


def _maths(match: re.Match[str]) -> str:
    r"""`\(…\)` or `\[…\]` as MathML, which browsers show by themselves and screen readers read."""
    tex = html.unescape(match[2]).strip()
    markup = convert(tex[2:-2].strip(), display="block" if match[1] == "div" else "inline")
    return re.sub(r"<msup><mi>(\w)</mi><m[io][^>]*>&#x02032;</m[io]></msup>", r"<mi>\1′</mi>", markup)


def _named(match: re.Match[str], page: Any) -> str:
    """The name of a public function, or a call of it, as a link to where it is described."""
    link, name, call = match[1], match[2], match[3] or ""
    place = described().get(name.removeprefix("attrfn."))
    if link or place is None:
        return match[0]
    up = "../" * page.file.src_uri.count("/")
    return f'<a href="{up}{place[0].replace(".md", ".html")}#{place[1]}"><code>{name}{call}</code></a>'


@cache
def described() -> dict[str, tuple[str, str]]:
    """From a name to its page and anchor: what follows `:::` on the pages of the reference."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted((ROOT / "docs/api").glob("*.md")):
        for name in re.findall(r"^::: (attrfn\.\S+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found[re.sub(r"^attrfn\.(_types\.)?", "", name)] = (f"api/{path.name}", name)
    return found


# ---------------------------------------------------------------- the check


def on_post_build(config: Any) -> None:
    """Warn of what is wrong with the built pages, which ends a strict build."""
    for fault in faults(Path(config.site_dir)):
        log.warning(unquote(fault))
