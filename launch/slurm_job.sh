#!/usr/bin/env bash
# The batch script of launch/slurm_gpu.sh: RETRIES COMMAND...
set -euo pipefail

readonly PREEMPTED=42
retries=$1
shift

# SLURM tells the batch script itself only when the job is cancelled or preempted, and requeues a
# preempted job by itself; near the time limit it tells the processes alone.
told=''
trap 'told=yes' TERM

flags=(--kill-on-bad-exit=1)
# srun does not take this over from sbatch.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || flags+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
code=0
srun "${flags[@]}" "$@" || code=$?

if ((code == PREEMPTED && ${SLURM_RESTART_COUNT:-0} < retries)) && [[ -z $told ]]; then
  echo "Preempted and saved; requeueing (${SLURM_RESTART_COUNT:-0} of $retries retries used)."
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
