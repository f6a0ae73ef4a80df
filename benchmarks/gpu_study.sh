#!/usr/bin/env bash
# Everything that wants a GPU, in calls of at most ten minutes: the benchmarks, eight stacked seeds,
# the whole study of sweep.yaml, its export.
#
#   benchmarks/gpu_study.sh [FOLDER]      (default: outputs/gpu)
#
# Each call goes on where the last one stopped; what is done is known by FOLDER/NAME.done, what was
# printed is in FOLDER/NAME.log. To run it to its end:
#
#   while benchmarks/gpu_study.sh; [ $? -eq 4 ]; do :; done
#
# environment: PYTHON (default: .venv/bin/python), MINUTES of a call (default: 10), PER_GPU: points
# of the study at a time on a GPU (default: 4).
#
# exit status: 0 all is done · 1 a part failed · 3 no CUDA device here · 4 call again
set -euo pipefail
started=$SECONDS
cd "$(dirname "$0")/.."

folder=${1:-outputs/gpu}
python=${PYTHON:-.venv/bin/python}
seconds=$((${MINUTES:-10} * 60 - 30))  # the rest is for stopping in good order

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "error: this machine has no CUDA device that PyTorch can use" >&2
  exit 3
fi
mkdir -p "$folder"

# part NAME LEAST COMMAND…: do it once, if LEAST seconds of this call are left for it.
part() {
  local name=$1 least=$2 left=$((seconds - (SECONDS - started))) status=0
  shift 2
  [ -e "$folder/$name.done" ] && return
  if [ "$left" -lt "$least" ]; then
    echo "$name is next: call again"
    exit 4
  fi
  echo "$name: $*"
  timeout --kill-after=30 "$left" "$@" >>"$folder/$name.log" 2>&1 || status=$?
  # 1 from agent.local: it went through all points, and some of them failed; the table names them.
  if [ $status -eq 0 ] || { [ $status -eq 1 ] && [ "$name" = study ]; }; then
    touch "$folder/$name.done"
  elif [ $status -eq 124 ] && [ "$name" = study ]; then
    echo "$name is not through: call again"
    exit 4
  else
    echo "error: $name: exit status $status, see $folder/$name.log" >&2
    exit 1
  fi
}

bench=("$python" -m benchmarks --device cuda)

part step 400 "${bench[@]}" --only step --output "$folder/step"
part stacked 200 "${bench[@]}" --only stacked --output "$folder/stacked"
part inference 400 "${bench[@]}" --only inference --output "$folder/inference"
part around 300 "${bench[@]}" --only memory,dataset,startup,run,export --output "$folder/around"
part growth 400 "${bench[@]}" --growth "$folder/growth.png" --output "$folder/growth"
part replicates 200 "$python" -m fno_runner --device=cuda --replicates=8 --architecture=fno \
  --width=32 --modes=12 --conditioning=amplitude --epochs=2 --output_dir="$folder/replicates"
part study 60 "$python" -m agent.local sweep.yaml --per-gpu "${PER_GPU:-4}" --study "$folder/study"
part export 30 "$python" -m agent.export "$folder/study"
echo "all is done: $folder"
