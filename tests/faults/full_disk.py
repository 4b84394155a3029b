"""Run what writes files on a disk that is full after some bytes, and look at what is left there.

``python tests/faults/full_disk.py save`` mounts disks in memory, which Linux allows to root.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from kill import VERBS, names_in


def size_of(folder):
    """Bytes that a disk in memory needs for a folder: whole pages, and one for each folder."""
    return sum(4096 * max(1, -(-path.stat().st_size // 4096)) for path in folder.rglob("*"))


def mount(folder, n_bytes):
    line = ["mount", "-t", "tmpfs", "-o", f"size={max(n_bytes, 4096)}", "tmpfs", str(folder)]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def main(name):
    """Run a verb with less and less room."""
    verb, home = VERBS[name](), Path(tempfile.mkdtemp())
    verb.prepare(home)
    before = home.with_name(f"{home.name}-before")
    shutil.copytree(home, before)
    verb.run(home)
    whole, needed = names_in(home), 3 * size_of(home) + 2**20
    shutil.rmtree(home)
    home.mkdir()
    n_full = 0
    for share in (0.0, 0.01, 0.02, 0.04, 0.06, 0.1, 1.0):
        if not mount(home, size_of(before) + 4096 + int(share * needed)):
            print("no permission to mount")
            return
        try:
            shutil.copytree(before, home, dirs_exist_ok=True)
            try:
                verb.run(home)
            except (OSError, AssertionError) as error:
                text = f"{type(error).__name__}: {error}"
                assert any(said in text for said in SAID), text
                n_full += 1
                verb.check(home, False)
            else:
                verb.check(home, True)
                assert names_in(home) == whole
        finally:
            subprocess.run(["umount", str(home)], check=True)
    print(json.dumps({"verb": name, "n_full": n_full}))


# What a user has to read to know what to do.
SAID = ("No space left", "disk is full", "Check space")

if __name__ == "__main__":
    main(sys.argv[1])
