#!/usr/bin/env bash
# Submits a run to SLURM; it is queued again after preemption and when its time is over.
#
#   launch/slurm.sh [--dry-run] [--nodes=N] [--array=SPEC] [--sbatch=OPTION]… --config=FILE [flags]
#
#   launch/slurm.sh --sbatch=--time=4:00:00 --sbatch=--gres=gpu:1 --config=configs/fets.py --workdir=W
#   launch/slurm.sh --array=0-4 --config=configs/fets.py --config.seed=%a --workdir=runs/fets-%a
#
# --nodes: one process per node, all of them one run; the workdir lies on a file system they share.
# --array: one run per task of the array; %a in the flags is the task's number.
# Two minutes before the end SLURM sends SIGTERM: the run saves, ends with status 75 and is requeued.
set -euo pipefail

nodes=1 array= dry=
options=() flags=()
for argument in "$@"; do
  case $argument in
    --dry-run) dry=yes ;;
    --nodes=*) nodes=${argument#*=} ;;
    --array=*) array=${argument#*=} ;;
    --sbatch=*) options+=("${argument#*=}") ;;
    *) flags+=("$argument") ;;
  esac
done
case $nodes in
  "" | *[!0-9]* | 0) echo "launch/slurm.sh: --nodes=$nodes: a whole number from 1" >&2; exit 2 ;;
esac
if [ "$nodes" != 1 ]; then flags+=("--coordinator=auto"); fi
quoted=$(printf ' %q' ${flags[@]+"${flags[@]}"})
quoted=${quoted//%a/\$\{SLURM_ARRAY_TASK_ID\}}

submit=(sbatch --job-name=jaxfer --requeue --open-mode=append --signal=TERM@120)
submit+=("--nodes=$nodes" --ntasks-per-node=1)
if [ -n "$array" ]; then submit+=("--array=$array"); fi
submit+=(${options[@]+"${options[@]}"})
job="#!/usr/bin/env bash
status=0
srun --kill-on-bad-exit=0 ${PYTHON:-python} -m jaxfer.launch$quoted || status=\$?
if [ \"\$status\" = 75 ]; then scontrol requeue \"\$SLURM_JOB_ID\"; fi
exit \"\$status\""
if [ -n "$dry" ]; then
  echo "${submit[@]}"
  echo "$job"
else
  "${submit[@]}" <<< "$job"
fi
