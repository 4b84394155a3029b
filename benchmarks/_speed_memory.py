"""Peak memory of a job in a process of its own, above that of its imports.

``python _speed_memory.py '{"module": ..., "function": ..., "imports": [...], "arguments": {...}}'``
prints JSON; :func:`measure` runs that and reads it.
"""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path

MIB = 2**20


def peak() -> float:
    """Largest resident size of this process so far, MiB.

    ``ru_maxrss`` does not do on Linux: a child inherits its parent's peak through fork and exec.
    The kernel's ``VmHWM`` belongs to the program that runs now.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def measure(
    module: str, function: str, imports: list[str], **arguments: object
) -> dict[str, float]:
    """Call ``module.function(**arguments)`` in a fresh process.

    Parameters
    ----------
    module, function
        What to call; it may return a dictionary of further numbers.
    imports
        Modules to import before the first reading.
    **arguments
        Anything that JSON holds.

    Returns
    -------
    ``imports`` and ``above`` (peak above it), both MiB, and what the function returned.
    """
    task = {"module": module, "function": function, "imports": imports, "arguments": arguments}
    command = [sys.executable, __file__, json.dumps(task)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module}.{function}({arguments}) failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Do the task that the command line holds."""
    task = json.loads(sys.argv[1])
    import warnings

    import _speed_threads

    warnings.filterwarnings("ignore")
    _speed_threads.limit_torch()
    for name in task["imports"]:
        importlib.import_module(name)
    function = getattr(importlib.import_module(task["module"]), task["function"])
    before = peak()
    numbers = function(**task["arguments"]) or {}
    print(json.dumps({"imports": before, "above": peak() - before, **numbers}))


if __name__ == "__main__":
    main()
