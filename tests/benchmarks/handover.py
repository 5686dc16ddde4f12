"""Runs the scripts of docs/scale.md that load features into vector databases, and compares what they find.

    python -m venv /tmp/engines
    /tmp/engines/bin/pip install lancedb pyarrow qdrant-client pymilvus milvus-lite psycopg[binary] pgvector pgserver
    python tests/benchmarks/handover.py --python /tmp/engines/bin/python --rows 20000

Features are random directions, the hardest case for an index. The share of the ten nearest that a script finds is
against exact search with NumPy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent.parent))

import handover

_PACKAGES = (
    "lancedb",
    "qdrant-client",
    "pymilvus",
    "milvus-lite",
    "psycopg",
    "pgvector",
    "pgserver",
    "pyarrow",
    "numpy",
)
_VERSIONS = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        found[name] = "none"
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable, help="of the environment that has the engines")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--width", type=int, default=512)
    given = parser.parse_args()
    versions = subprocess.run([given.python, "-c", _VERSIONS, *_PACKAGES], capture_output=True, text=True, check=True)
    print(", ".join(f"{name} {version}" for name, version in json.loads(versions.stdout).items()))
    for name in handover.SCRIPTS:
        for dtype in ("float32", "float16"):
            with tempfile.TemporaryDirectory() as folder:
                nearest = handover.write_inputs(Path(folder), dtype, rows=given.rows, width=given.width)
                began = perf_counter()
                found = [path for _, path in handover.run_script(name, Path(folder), given.python)]
                seconds = perf_counter() - began
            shared = len({*found} & {*nearest})
            print(f"{name} {dtype}: {shared} of the 10 nearest, first {found[0] == nearest[0]}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
