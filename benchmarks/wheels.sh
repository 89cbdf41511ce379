#!/usr/bin/env bash
# Brings lthdask to a machine with a GPU that has PyTorch but reaches no package index.
#
#   bash benchmarks/wheels.sh FOLDER 3.12      # here; the second is the version of its Python
#
# FOLDER then holds wheels of lthdask, of what it needs for Linux on x86-64, of pytest and
# hypothesis; but none of PyTorch and what mostly comes with it: NumPy, SciPy, pandas,
# scikit-learn, Pillow. There:
#
#   python3 -m pip install --no-index --no-deps --target site FOLDER/*.whl
#   export PYTHONPATH=$PWD/site:$PWD
set -euo pipefail
folder=$1 version=$2
mkdir -p "$folder"
uv build --quiet --wheel --out-dir "$folder"
printf 'pytest\nhypothesis\n' | uv pip compile --quiet pyproject.toml - --python-version "$version" \
    --python-platform x86_64-manylinux_2_28 --no-header --no-annotate |
    grep -Ev '^(torch|torchvision|triton|nvidia-.*|cuda-.*|numpy|scipy|pandas|scikit-learn|pillow|setuptools|sympy|mpmath|networkx)==' \
        >"$folder/list.txt"
platforms=(--platform manylinux2014_x86_64)
for minor in 17 24 27 28; do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done
uvx --quiet pip download --quiet --no-deps --only-binary=:all: --implementation cp \
    --python-version "$version" "${platforms[@]}" --dest "$folder" --requirement "$folder/list.txt"
du -sh "$folder"
