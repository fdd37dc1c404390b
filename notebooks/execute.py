"""Execute every notebook, each within 90 seconds and without a warning; with `--write`, keep what it shows.

Those that run at once share the cores, and have so many times 90 seconds.

python notebooks/execute.py [--write] [--at-once N] [NOTEBOOK ...]
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient

SECONDS = 90
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # nothing is downloaded
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # pictures are kept, whatever the shell says
    "PYTHONWARNINGS": "ignore:IProgress not found",  # of tqdm, for progress bars that no notebook shows
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path, write: bool, at_once: int) -> None:
    most = SECONDS * at_once
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))} if at_once > 1 else {}
    notebook = nbformat.read(path, as_version=4)
    if not write:
        kept(path, notebook)
    start = time.perf_counter()
    client = NotebookClient(
        notebook, timeout=most, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    )
    client.execute(env={**os.environ, **ENVIRONMENT, **threads})
    seconds = time.perf_counter() - start
    print(f"{path.name}: {seconds:.0f} s", flush=True)
    if seconds > most:
        raise TimeoutError(f"{path.name} took {seconds:.0f} s, more than {most}")
    quiet(path, notebook)
    if write:
        nbformat.write(tidy(notebook), path)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kept(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Raise if the notebook was not stored as it ran, from top to bottom, with words for its pictures."""
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        raise ValueError(f"{path.name} was not stored after a run from top to bottom; execute.py --write stores it so")
    for cell in cells:
        if any("image/png" in output.get("data", {}) for output in cell.outputs) and not cell.metadata.get("alt"):
            raise ValueError(f"the picture of cell {cell.id} of {path.name} has no alt text in the cell's metadata")


def quiet(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Raise if a cell wrote to the stream of errors, as warnings do."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                raise ValueError(f"cell {cell.id} of {path.name} warned:\n{output.text}")


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without times of day and versions, with the pieces of a stream joined."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in code_cells(notebook):
        cell.metadata.pop("execution", None)
        joined: list[nbformat.NotebookNode] = []
        for output in cell.outputs:
            if joined and output.output_type == "stream" == joined[-1].output_type:
                joined[-1].text += output.text
            else:
                joined.append(output)
        cell.outputs = joined
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description="Execute notebooks.")
    parser.add_argument("--write", action="store_true", help="keep what they show")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="how many run at once")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="all in this folder")
    asked = parser.parse_args()
    paths = [p.resolve() for p in asked.notebooks] or sorted(Path(__file__).parent.resolve().glob("[0-9]*.ipynb"))
    if not paths:
        raise FileNotFoundError("no notebook")
    with ThreadPoolExecutor(asked.at_once) as pool:
        for done in [pool.submit(execute, path, asked.write, asked.at_once) for path in paths]:
            done.result()


if __name__ == "__main__":
    main()
