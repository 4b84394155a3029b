#!/usr/bin/env bash
# Creates the environment of CellTypist 1.7.1, which trains only with scikit-learn < 1.8.
#   benchmarks/celltypist_env.sh [FOLDER]      (default: .venv-celltypist of the repository)
# PYTHON picks the interpreter. Prints the interpreter's path: accuracy.py
# finds the default folder by itself, another one through --celltypist-python.
set -euo pipefail

folder="${1:-$(cd "$(dirname "$0")/.." && pwd)/.venv-celltypist}"
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet "celltypist==1.7.1" "scikit-learn<1.8"
"$folder/bin/python" -c "import celltypist, sklearn; print(celltypist.__version__, sklearn.__version__)"
echo "$folder/bin/python"
