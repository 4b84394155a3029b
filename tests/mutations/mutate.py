"""Mutants of functions whose silent breakage hurts most, and which of them the tests miss.

`make mutate`, or `python tests/mutations/mutate.py [--most N] [NAME ...]` for some of `targets.toml`,
and at most N mutants of each, drawn by a seed. Each change of an operator, a constant, a `not`, a
returned value or a statement is a mutant. It is written to a temporary file, imported in place of its
module, and tested in a process of its own. The tests kill it if they fail or take too long. Survivors
are listed: a test is missing, or the change has no effect.

mutmut, the common tool, leaves out decorated functions, among them all compiled kernels.
"""

import argparse
import ast
import importlib.util
import os
import random
import signal
import sys
import tempfile
import time
import tomllib
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SWAPS = "Lt LtE Gt, LtE Lt, Gt GtE Lt, GtE Gt, Eq NotEq, NotEq Eq, Is IsNot, IsNot Is, In NotIn, "
_SWAPS += "NotIn In, Add Sub, Sub Add, Mult Div, Div Mult, FloorDiv Mult, Mod Mult, Pow Mult, "
_SWAPS += "BitAnd BitOr, BitOr BitAnd, And Or, Or And, USub UAdd, Invert UAdd"
SWAPS = {first: others for first, *others in map(str.split, _SWAPS.split(", "))}
DROPPED = ast.AugAssign | ast.Raise | ast.Expr | ast.Continue | ast.Break


def changed_fields(node):
    """List changes of a node: a field and its value in the mutant."""
    for other in SWAPS.get(type(getattr(node, "op", None)).__name__, ()):
        yield "op", getattr(ast, other)()
    for i, op in enumerate(getattr(node, "ops", ())):
        for other in SWAPS.get(type(op).__name__, ()):
            yield "ops", [*node.ops[:i], getattr(ast, other)(), *node.ops[i + 1 :]]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operand", ast.UnaryOp(ast.Not(), node.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield "value", not node.value if isinstance(node.value, bool) else node.value + 1
    if isinstance(node, ast.Return) and not isinstance(node.value, ast.Constant | None):
        yield "value", ast.Constant(None)
    for field in ("body", "orelse", "finalbody"):
        lines = getattr(node, field, None)
        for i, line in enumerate(lines if isinstance(lines, list) else ()):
            is_docstring = isinstance(getattr(line, "value", None), ast.Constant)
            if isinstance(line, DROPPED) and (isinstance(line, ast.AugAssign) or not is_docstring):
                yield field, [*lines[:i], ast.Pass(), *lines[i + 1 :]]


def mutants(source, names):
    """List mutants of functions of a module: function, description, and source of the module."""
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in names]
    assert {f.name for f in functions} == set(names), f"there is not each of {names}"
    for function in functions:
        nodes = [n for line in function.body for n in ast.walk(line)]
        # What messages say has tests of its own.
        said = [n for n in nodes if isinstance(n, ast.JoinedStr | ast.Raise)]
        said += [n.annotation for n in nodes if isinstance(n, ast.AnnAssign)]
        text = {id(part) for n in said for part in ast.walk(n)}
        whole = ast.unparse(function).split("\n")
        for node in [function, *(n for n in nodes if id(n) not in text)]:
            for field, value in changed_fields(node):
                kept = getattr(node, field)
                setattr(node, field, value)
                lines = ast.unparse(function).split("\n")
                pairs = [p for p in zip_longest(whole, lines) if p[0] != p[1]]
                first, then = (line.strip() for line in pairs[0])
                yield function.name, f"`{first}` -> `{then}`", ast.unparse(tree)
                setattr(node, field, kept)


class Finder:
    """Import of one module from another file; others, and their compiled kernels, are as ever."""

    def __init__(self, name, path):
        self.name, self.path = name, path

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path)
        return None


def passes(name, source, tests, seconds):
    """Return whether tests pass, within some seconds, with a module of this source."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name.rsplit('.', 1)[1]}.py"
        path.write_text(source)
        if (pid := os.fork()) == 0:
            os.setpgid(0, 0)  # with the processes that tests start
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            sys.meta_path.insert(0, Finder(name, path))
            options = "-x -q -p no:cacheprovider -p no:xdist --assert=plain --hypothesis-seed=0 --rootdir"
            paths = [str(ROOT / test) for test in tests]
            os._exit(
                int(
                    sys.modules["pytest"].main(
                        [*options.split(), str(ROOT), "-m", "not slow", *paths]
                    )
                )
            )
        end, status = time.monotonic() + seconds, None
        while status is None:
            time.sleep(0.02)
            ended, code = os.waitpid(pid, os.WNOHANG)
            if ended:
                status = code
            elif time.monotonic() > end:
                os.killpg(pid, signal.SIGKILL)
    return status == 0


def main():
    """Print survivors, and a line of counts per function."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--most", type=int, default=10**6)
    asked = parser.parse_args()
    targets = tomllib.loads((Path(__file__).parent / "targets.toml").read_text())
    for library in ("anndata", "numba", "pytest", "scvi", "sklearn"):
        importlib.import_module(library)  # once for all processes
    for target in asked.names or targets:
        module, functions, tests = targets[target].values()
        name = f"scvi_sctab.{module}"
        source = (ROOT / f"src/{name.replace('.', '/')}.py").read_text()
        start = time.monotonic()
        assert passes(name, source, tests, 900), f"{tests} fail as they are"
        seconds = 3 * (time.monotonic() - start) + 30
        counts = {function: [0, 0] for function in functions}
        found = list(mutants(source, functions))
        drawn = random.Random(0).sample(found, min(asked.most, len(found)))
        for function, description, mutant in drawn:
            survives = passes(name, mutant, tests, seconds)
            counts[function][survives] += 1
            if survives:
                print(f"survived  {target}  {function}  {description}", flush=True)
        for function, (killed, survived) in counts.items():
            print(
                f"{target:17} {function:26} killed {killed:3}  survived {survived:3}", flush=True
            )


if __name__ == "__main__":
    main()
