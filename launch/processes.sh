#!/usr/bin/env bash
# One run by several processes of this machine, as several hosts would do it.
#
#   launch/processes.sh [--dry-run] --processes=N [--devices=M] --config=FILE [flags of jaxfer.launch]
#
# --devices gives each process M virtual devices of the processor. What the first process says is
# shown; the others' words are in <process>.log of --logs=DIR, if that is given. SIGTERM and SIGINT go
# to all of them. Ends with the highest status of them all: 75 means that the same command goes on.
set -euo pipefail

processes= devices= logs= dry=
command=("${PYTHON:-python}" -m jaxfer.launch)
for argument in "$@"; do
  case $argument in
    --dry-run) dry=yes ;;
    --processes=*) processes=${argument#*=} ;;
    --devices=*) devices=${argument#*=} ;;
    --logs=*) logs=${argument#*=} ;;
    *) command+=("$argument") ;;
  esac
done
for number in "processes=$processes" ${devices:+"devices=$devices"}; do
  case ${number#*=} in
    "" | *[!0-9]* | 0) echo "launch/processes.sh: --$number: a whole number from 1" >&2; exit 2 ;;
  esac
done

port=${JAXFER_PORT:-$((20000 + RANDOM % 20000))}
if [ -n "$devices" ]; then
  command=(env "JAX_NUM_CPU_DEVICES=$devices" "${command[@]}")
fi
command+=("--coordinator=localhost:$port" "--processes=$processes")
if [ -n "$dry" ]; then
  for ((process = 0; process < processes; process++)); do echo "${command[@]}" "--process=$process"; done
  exit 0
fi

started=()
for ((process = 0; process < processes; process++)); do
  out=/dev/null
  if [ -n "$logs" ]; then mkdir -p "$logs"; out=$logs/$process.log; fi
  if [ "$process" = 0 ]; then
    "${command[@]}" "--process=$process" &
  else
    "${command[@]}" "--process=$process" > "$out" 2>&1 &
  fi
  started+=($!)
done
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
