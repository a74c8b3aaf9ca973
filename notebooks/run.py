"""Run a notebook in a fresh kernel and print what its cells say: `python notebooks/run.py NOTEBOOK [--save]`.

With `--save` the outputs are also written back to the file.
"""

import argparse
import pathlib
import sys

import nbclient
import nbformat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=pathlib.Path)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    notebook = nbformat.read(options.notebook, as_version=4)
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
    for cell in notebook.cells:
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
