// Run a Python file in Pyodide: node pyodide.mjs PYODIDE SITE REPOSITORY FILE [WORD ...]. The words are `sys.argv[1:]`.
import fs from "node:fs";
import { pathToFileURL } from "node:url";

const [pyodide, site, repository, file, ...words] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${pyodide}/pyodide.mjs`));
const python = await loadPyodide({
  env: { HOME: "/home/pyodide", MENTRA_HOME: "/home/pyodide/mentra", PYTHONPATH: "/site:/repo:/repo/tests" },
});
for (const [folder, point] of [[site, "/site"], [repository, "/repo"]]) {
  python.FS.mkdirTree(point);
  python.FS.mount(python.FS.filesystems.NODEFS, { root: folder }, point);
}
python.runPython("import sys, importlib; sys.path_importer_cache.clear(); importlib.invalidate_caches()");
python.globals.set("words", words);
python.runPython(`import sys; sys.argv = ["", *words.to_py()]`);
try {
  await python.runPythonAsync(fs.readFileSync(file, "utf8"));
} catch (error) {
  console.error(error.message ?? error);
  process.exit(1);
}
process.exit(0); // what is left on the event loop ends with it
