"""Run a notebook in a fresh kernel and print what its cells say: `python notebooks/run.py NOTEBOOK [--save]`.

With `--save` the outputs are also written back to the file. With `--tape provider/model` that model is asked, and its
answers replace the tape that the notebook replays: a tape answers only the very requests it was made of, so a change of
a tool's description needs a new one.
"""

import argparse
import pathlib
import re
import sys

import nbclient
import nbformat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=pathlib.Path)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--tape", metavar="MODEL")
    options = parser.parse_args()
    notebook = nbformat.read(options.notebook, as_version=4)
    sources = [cell.source for cell in notebook.cells]
    if options.tape:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.source = re.sub(r"mn\.replay\((.*)\)", rf"mn.tape(\1, {options.tape!r})", cell.source)
    client = nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(options.notebook.parent)}},
        # Without it the kernel warns that TCP is not encrypted; this one is on the same machine.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        sys.exit(f"{options.notebook}: {error}")
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
        cell.metadata.pop("execution", None)  # times of day
        if cell.cell_type == "code":
            print("\n".join(f">>> {line}" for line in cell.source.splitlines()))
            print("\n".join(text for output in cell.outputs if (text := as_text(output))), end="\n\n")
    if options.save:
        nbformat.write(notebook, options.notebook)


def as_text(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream":
        return output.text.rstrip()
    return output.get("data", {}).get("text/plain", "").rstrip()


if __name__ == "__main__":
    main()
