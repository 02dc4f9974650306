#!/bin/sh
# Usage: cosmos_cpu.sh [WHEEL]. Runs all of Cosmos-RL's control plane on a machine without a GPU.
#
# A controller, Redis and a colocated worker train for STEPS iterations (40), then two workers for
# half as many, then one that drives and one that learns for a quarter. CUDA calls are stubbed, and
# gloo takes the place of NCCL (cosmos_cpu/stubs.py, gloo.py). cosmos_cpu/check.py looks at what
# comes of it. The environment in
# COSMOS_VENV (.venv-cosmos, 2 GB) is made at first. Without WHEEL alpagym is taken from python/,
# where its core must have been built. Redis is the system's, or else Debian's, unpacked in there.
set -eu
cd "$(dirname "$0")/.."
wheel=${1:-}
venv=${COSMOS_VENV:-.venv-cosmos}
steps=${STEPS:-40}
port=${PORT:-18790}
limit=${LIMIT:-1800}  # seconds that each of the runs may take
python=${PYTHON:-python3}
fail() { echo "alpagym: $1" >&2; exit 1; }

pins=scripts/cosmos_cpu/requirements.txt
if ! cmp -s $pins "$venv/installed.txt"; then
  echo "alpagym: making $venv (the first time takes minutes)"
  "$python" -m venv "$venv"
  options=
  "$venv/bin/python" -m pip config list | grep -qE 'index|find-links' ||
    options="--extra-index-url https://download.pytorch.org/whl/cpu"
  # shellcheck disable=SC2086  options is empty or two words
  "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-deps -r $pins $options
  cp $pins "$venv/installed.txt"
fi
venv=$(cd "$venv" && pwd)

if ! command -v redis-server >/dev/null; then
  if ! [ -x "$venv/redis/usr/bin/redis-server" ]; then
    command -v apt-get >/dev/null || fail "no redis-server on PATH: install Redis"
    mkdir -p "$venv/redis"
    (cd "$venv/redis" && apt-get download -qq redis-server redis-tools libjemalloc2 liblzf1 &&
      for package in *.deb; do dpkg -x "$package" .; done) ||
      fail "no redis-server on PATH, and apt-get cannot download Debian's: install Redis"
  fi
  LD_LIBRARY_PATH=$(find "$venv/redis/usr/lib" -type d | paste -sd:)
  export LD_LIBRARY_PATH PATH="$venv/redis/usr/bin:$PATH"
fi

if [ -n "$wheel" ]; then
  "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-deps --force-reinstall "$wheel"
else
  PYTHONPATH=$PWD/python${PYTHONPATH:+:$PYTHONPATH}
  export PYTHONPATH
fi
export COSMOS_PYTHON="$venv/bin/python" PYTHONWARNINGS=ignore HF_HUB_OFFLINE=1

keys=$("$venv/bin/python" scripts/cosmos_keys.py --check 2>&1) || fail "$keys"
echo "$keys" | tail -n 1
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

# Usage: prove NAME STEPS [OPTION...]. Every iteration drives all 16 scenarios: returns compare.
prove() {
  name=$1
  iterations=$2
  shift 2
  timeout -k 60 "$limit" "$venv/bin/python" -m alpagym train backend=cosmos cosmos.port="$port" runs="$runs" name="$name" \
    cosmos.command="$PWD/scripts/cosmos_cpu/cosmos-rl" device=cpu threads=1 data.train=16 \
    data.held_out=16 data.validation=1 num_replays=0 imitation.max_epochs=2 \
    grpo.iterations="$iterations" grpo.scenarios_per_iteration=16 grpo.group_size=8 \
    grpo.epochs=2 grpo.learning_rate=1e-3 "$@" ||
    { tail -n 40 "$runs/$name/cosmos/log.txt" >&2; exit 1; }
  "$venv/bin/python" scripts/cosmos_cpu/check.py "$runs/$name"
}
prove one "$steps"
prove two "$((steps / 2))" cosmos.policies=2
prove apart "$((steps / 4))" cosmos.mode=disaggregated \
  'cosmos.options={train.train_policy.allowed_outdated_steps: 0}'
