#!/bin/sh
# Usage: install_dependencies.sh VENV. Creates the virtual environment and installs what building,
# running, testing and linting alpagym needs, at the versions of constraints.txt.
set -eu
venv=$1
python=${PYTHON:-python3}
fail() { echo "alpagym: $1" >&2; exit 1; }

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
  fail "no Python found as '$python': install Python 3.11 or newer, or name one: make PYTHON=python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "Python 3.11 or newer is needed, '$python' is $version: name another, for example make PYTHON=python3.12"
command -v "${CXX:-c++}" >/dev/null ||
  fail "no C++ compiler found as '${CXX:-c++}': install one, for example apt-get install g++"

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  echo "alpagym: creating $venv with Python $version"
  "$python" -m venv "$venv" ||
    fail "'$python -m venv' failed: install it, for example apt-get install python3-venv"
fi

# What pyproject.toml asks for, read from there so that it is written once.
"$venv/bin/python" - > "$venv/requirements.txt" <<'PY'
import tomllib

with open("pyproject.toml", "rb") as file:
    config = tomllib.load(file)
project = config["project"]
extras = project["optional-dependencies"]
wanted = config["build-system"]["requires"] + project["dependencies"] + extras["test"] + extras["dev"]
print(*wanted, sep="\n")
PY

# PyPI's torch for Linux brings gigabytes of CUDA libraries. A machine without an NVIDIA GPU takes
# PyTorch's own CPU build instead, unless pip is already told where to look, or it is out of reach.
index=https://download.pytorch.org/whl/cpu
options=
told=$("$venv/bin/python" -m pip config list | grep -E 'index|find-links' || true)
if [ ! -e /dev/nvidia0 ] && ! command -v nvidia-smi >/dev/null &&
  [ -z "$told" ] &&
  "$venv/bin/python" -c "import urllib.request as u; u.urlopen('$index/torch/', timeout=5)" 2>/dev/null; then
  options="--extra-index-url $index"
fi

echo "alpagym: installing dependencies (the first time takes a few minutes)"
# shellcheck disable=SC2086  options is empty or two words
"$venv/bin/python" -m pip --disable-pip-version-check install -qq --constraint constraints.txt \
  --requirement "$venv/requirements.txt" $options
