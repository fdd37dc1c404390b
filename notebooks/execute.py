"""Execute every notebook, each within 90 seconds; with `--write`, keep what it shows.

python notebooks/execute.py [--write] [NOTEBOOK ...]
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

SECONDS = 90


def execute(path: Path, write: bool) -> None:
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    )
    client.execute()
    seconds = time.perf_counter() - start
    print(f"{path.name}: {seconds:.0f} s", flush=True)
    if seconds > SECONDS:
        raise TimeoutError(f"{path.name} took {seconds:.0f} s, more than {SECONDS}")
    if write:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times of day
        nbformat.write(notebook, path)


def main(arguments: list[str]) -> None:
    write = "--write" in arguments
    named = [Path(a).resolve() for a in arguments if a != "--write"]
    paths = named or sorted(Path(__file__).parent.resolve().glob("[0-9]*.ipynb"))
    if not paths:
        raise FileNotFoundError("no notebook")
    for path in paths:
        execute(path, write)


if __name__ == "__main__":
    main(sys.argv[1:])
