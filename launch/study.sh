#!/usr/bin/env bash
# A study by several launches on this machine, each on one core of its own.
#
#   launch/study.sh [--dry-run] [--launches=N] [--logs=DIR] --config=configs/study_selection.py [flags of jaxfer.launch]
#
# Small networks gain little from a second thread: a launch per core does about twice as much as one
# launch on two cores. What the first launch says is shown; the others' words are in <number>.log of
# --logs=DIR, if that is given. SIGTERM and SIGINT go to all of them. Ends with the highest status of
# them all: 75 means that the same command goes on. On a cluster, share the workdir by an array:
#
#   launch/slurm.sh --array=0-15 --config=configs/study_selection.py --workdir=runs/study
set -euo pipefail

# The cores that this shell may use, such as 0-3,8; nowhere to be bound to where there is no taskset.
cores=()
if command -v taskset > /dev/null; then
  for span in $(taskset --cpu-list --pid $$ | sed 's/.*: //; s/,/ /g'); do
    for ((core = ${span%-*}; core <= ${span#*-}; core++)); do cores+=("$core"); done
  done
fi
launches=${#cores[@]} logs= dry=
command=("${PYTHON:-python}" -m jaxfer.launch)
for argument in "$@"; do
  case $argument in
    --dry-run) dry=yes ;;
    --launches=*) launches=${argument#*=} ;;
    --logs=*) logs=${argument#*=} ;;
    *) command+=("$argument") ;;
  esac
done
case $launches in
  "" | *[!0-9]* | 0) echo "launch/study.sh: --launches=$launches: a whole number from 1" >&2; exit 2 ;;
esac

command=(env "XLA_FLAGS=--xla_cpu_multi_thread_eigen=false${XLA_FLAGS:+ $XLA_FLAGS}" OMP_NUM_THREADS=1 "${command[@]}")

started=()
for ((number = 0; number < launches; number++)); do
  bound=("${command[@]}")
  if [ ${#cores[@]} != 0 ]; then
    bound=(taskset --cpu-list "${cores[number % ${#cores[@]}]}" "${command[@]}")
  fi
  if [ -n "$dry" ]; then
    echo "${bound[@]}"
    continue
  fi
  if [ "$number" = 0 ]; then
    "${bound[@]}" &
  elif [ -n "$logs" ]; then
    mkdir -p "$logs"
    "${bound[@]}" > "$logs/$number.log" 2>&1 &
  else
    "${bound[@]}" > /dev/null &
  fi
  started+=($!)
done
if [ -n "$dry" ]; then exit 0; fi
trap 'kill -TERM "${started[@]}" 2> /dev/null || true' TERM INT
status=0
for process in "${started[@]}"; do
  while true; do
    found=0
    wait "$process" || found=$?
    # A signal to this script ends the wait, not the process.
    kill -0 "$process" 2> /dev/null || break
  done
  if [ "$found" -gt "$status" ]; then status=$found; fi
done
exit "$status"
