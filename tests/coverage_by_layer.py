"""Table of the lines that tests run, per package: `make coverage`.

Files of compiled kernels are left out, since no line of them runs as Python; what tests start as other
processes is not counted.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

if __name__ == "__main__":
    counts = defaultdict(lambda: [0, 0])
    for name, file in json.loads(Path(sys.argv[1]).read_text())["files"].items():
        if name.endswith("kernels.py"):
            continue
        package = Path(name.partition("scvi_sctab/")[2]).parts
        row = counts[package[0] if len(package) > 1 else "(top)"]
        row[0] += file["summary"]["covered_lines"]
        row[1] += file["summary"]["num_statements"]
    for package, (covered, total) in sorted(counts.items(), key=lambda c: c[1][0] / c[1][1]):
        print(f"{package:12} {covered:6,} of {total:6,} lines  {covered / total:6.1%}")
