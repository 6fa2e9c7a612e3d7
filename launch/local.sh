#!/usr/bin/env bash
# The main job on this machine, its processor split into several devices.
#
#   launch/local.sh [--dry-run] [--devices=N] --config=configs/demo.py [further flags of jaxfer.launch]
#
# On a machine with GPUs or a TPU leave --devices out: every local device is used as it is.
# --dry-run prints the command instead of running it.
set -euo pipefail

devices=
run=()
command=("${PYTHON:-python}" -m jaxfer.launch)
for argument in "$@"; do
  case $argument in
    --dry-run) run=(echo) ;;
    --devices=*) devices=${argument#--devices=} ;;
    *) command+=("$argument") ;;
  esac
done

if [ -n "$devices" ]; then
  case $devices in
    *[!0-9]* | 0) echo "launch/local.sh: --devices=$devices: a whole number from 1" >&2; exit 2 ;;
  esac
  command=(env "JAX_NUM_CPU_DEVICES=$devices" "${command[@]}")
fi
exec ${run[@]+"${run[@]}"} "${command[@]}"
