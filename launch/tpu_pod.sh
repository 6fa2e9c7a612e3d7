#!/usr/bin/env bash
# One run on all workers of a TPU VM, or of a pod slice.
#
#   launch/tpu_pod.sh [--dry-run] --tpu=NAME --zone=ZONE [--directory=DIR] --config=FILE --workdir=DIR
#
# Every worker has the project in DIR (default: jaxfer, in the home folder), installed; the workdir lies
# on a file system that all workers mount (Filestore, a bucket by gcsfuse). A preempted TPU that is
# made again goes on with the same command.
set -euo pipefail

tpu= zone= directory=jaxfer dry= shared=
flags=()
for argument in "$@"; do
  case $argument in
    --dry-run) dry=yes ;;
    --tpu=*) tpu=${argument#*=} ;;
    --zone=*) zone=${argument#*=} ;;
    --directory=*) directory=${argument#*=} ;;
    *) flags+=("$argument"); case $argument in --workdir=*) shared=yes ;; esac ;;
  esac
done
for named in "tpu=$tpu" "zone=$zone" "workdir=$shared"; do
  if [ -z "${named#*=}" ]; then echo "launch/tpu_pod.sh: --${named%%=*} is missing" >&2; exit 2; fi
done
quoted=$(printf ' %q' "${flags[@]}")
command=(
  gcloud compute tpus tpu-vm ssh "$tpu" "--zone=$zone" --worker=all
  "--command=cd $(printf %q "$directory") && python -m jaxfer.launch$quoted --coordinator=auto"
)
if [ -n "$dry" ]; then printf '%s\n' "${command[*]}"; else exec "${command[@]}"; fi
