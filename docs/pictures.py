"""The pictures of the gallery and of the start, each made by the code above it.

python docs/pictures.py [FOLDER]
"""

import re
import sys
from pathlib import Path

import matplotlib

DOCS = Path(__file__).parent
PIECE = re.compile(r"^```python\n(.*?)^```$|^!\[[^\]]*\]\((?:\w+/)*(pictures/\w+\.png)\)", re.DOTALL | re.MULTILINE)


PAGES = ("start.md", "gallery.md")


def pieces(page: str) -> list[tuple[str, str]]:
    """In the page's order, blocks of code and names of the pictures behind them: one of the two is empty."""
    return PIECE.findall((DOCS / page).read_text(encoding="utf-8"))


def draw(page: str, folder: Path) -> list[Path]:
    """Run the page, and save what each picture's code drew last."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names, written = {"__name__": "page"}, []
    for code, picture in pieces(page):
        if code:
            exec(compile(code, page, "exec"), names)
            continue
        written.append(folder / Path(picture).name)
        plt.gcf().savefig(written[-1], dpi=110, bbox_inches="tight", pad_inches=0.05, metadata={"Software": None})
        plt.close("all")
    return written


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        for path in draw(page, folder):
            print(path)
