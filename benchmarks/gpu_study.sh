#!/usr/bin/env bash
# Everything that wants a GPU, in calls of at most eight minutes: the smoke suite, the benchmarks,
# the whole study of sweep.yaml and its export. Each call ends with the table of what is asked for.
#
#   benchmarks/gpu_study.sh [FOLDER]      (default: outputs/gpu)
#
# Each call goes on where the last one stopped, also on another machine of the same kind if FOLDER
# is brought along. What is done is known by FOLDER/NAME.done, what was printed is in
# FOLDER/NAME.log, how long it took [s] in FOLDER/NAME.seconds. To run it to its end:
#
#   while benchmarks/gpu_study.sh; [ $? -eq 4 ]; do :; done
#
# It needs this checkout, Python 3.11 or later, PyTorch 2.11 or later with CUDA, and the packages
# that it names if they are missing, in the versions of requirements.lock. No network, no account.
#
# environment: PYTHON (default: .venv/bin/python, or python3 where there is none), MINUTES of a call
# (default: 8), PARTS (default: all; a list such as "smoke step"), PER_GPU: points of the study at a
# time on a GPU (default: auto).
#
# exit status: 0 all is done · 1 a part failed, the others are done · 3 no CUDA device, or a package
# is missing · 4 call again
set -euo pipefail
started=$SECONDS
cd "$(dirname "$0")/.."

folder=${1:-outputs/gpu}
python=${PYTHON:-.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
seconds=$((${MINUTES:-8} * 60 - 30))  # the rest is for stopping in good order
all="smoke step profile ways replicates inference processes compiled around study export sizes growth"
parts=" ${PARTS:-$all} "

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "error: this machine has no CUDA device that PyTorch can use" >&2
  exit 3
fi
if ! missing=$("$python" -c '
import importlib.util, sys
needed = """filelock h5py hypothesis jaxtyping jinja2 matplotlib neuralop numpy optuna pandas PIL
plotly psutil pydantic pytest rich safetensors scipy skimage sklearn sqlalchemy torchmetrics wandb
yaml""".split()
lacking = [name for name in needed if importlib.util.find_spec(name) is None]
print(" ".join(lacking))
sys.exit(bool(lacking))'); then
  echo "error: $python lacks $missing (versions: requirements.lock)" >&2
  exit 3
fi
mkdir -p "$folder"
failed=0

# part NAME LEAST COMMAND…: do it once, if LEAST seconds of this call are left for it.
part() {
  local name=$1 least=$2 left=$((seconds - (SECONDS - started))) status=0 begun=$SECONDS
  shift 2
  [[ $parts == *" $name "* ]] || return 0
  [ -e "$folder/$name.done" ] && return
  if [ "$left" -lt "$least" ]; then
    echo "$name is next: call again"
    exit 4
  fi
  echo "$name: $*"
  timeout --kill-after=30 "$left" "$@" >>"$folder/$name.log" 2>&1 || status=$?
  echo $((SECONDS - begun)) >>"$folder/$name.seconds"
  # 1 from agent.local: it went through all points, and some of them failed; the table names them.
  if [ $status -eq 0 ] || { [ $status -eq 1 ] && [ "$name" = study ]; }; then
    touch "$folder/$name.done"
  elif [ $status -eq 124 ] && [ "$name" = study ]; then
    echo "$name is not through: call again"
    exit 4
  else
    echo "error: $name: exit status $status, see $folder/$name.log" >&2
    failed=1  # a machine is dear: what comes after is done all the same
  fi
}

trap '"$python" -m benchmarks.gpu_table "$folder" || true' EXIT
bench=("$python" -m benchmarks --device cuda)
asked=(--networks fno-32-12,hybrid-64-24)

part smoke 200 "$python" -m pytest tests/gpu -q -o addopts=-ra -W default -p no:cacheprovider
part step 150 "${bench[@]}" --only step "${asked[@]}" --output "$folder/step"
part profile 60 "$python" -m benchmarks.kernels fno-32-12 hybrid-64-24 --device cuda
part ways 150 "$python" -m benchmarks.ways fno-32-12 hybrid-64-24 --device cuda
part replicates 90 "${bench[@]}" --only replicates --output "$folder/replicates"
part inference 90 "${bench[@]}" --only inference "${asked[@]}" --output "$folder/inference"
part processes 150 "${bench[@]}" --only processes "${asked[@]}" --output "$folder/processes"
part compiled 180 "${bench[@]}" --only compiled "${asked[@]}" --output "$folder/compiled"
part around 240 "${bench[@]}" --only memory,dataset,startup,run,export --output "$folder/around"
part study 60 "$python" -m agent.local sweep.yaml --per-gpu "${PER_GPU:-auto}" \
  --study "$folder/study"
part export 30 "$python" -m agent.export "$folder/study"
part sizes 400 "${bench[@]}" --only step,inference --output "$folder/sizes"
part growth 400 "${bench[@]}" --growth "$folder/growth.png" --output "$folder/growth"
[ $failed -eq 0 ] || exit 1
echo "all is done: $folder"
