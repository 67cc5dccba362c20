#!/usr/bin/env bash
# Submit a command to SLURM as one process for each GPU.
#
#   launch/slurm_gpu.sh --name=pnet --nodes=2 --gpus-per-node=8 --time=24:00:00 -- \
#       python -m pnet_jax.main --config=configs/pnet300m_22k.py --workdir=/shared/pnet300m_22k
#
# --name=NAME          of the job; its log is NAME-JOBID.log in the current folder
# --nodes=N            (1)
# --gpus-per-node=N    GPUs, and processes, of each node (8)
# --time=HH:MM:SS      time limit of each run (that of the partition)
# --extra=FLAG         passed on to sbatch, e.g. --extra=--partition=gpu; may be repeated
# --retries=N          how often the job goes back into the queue (10)
# --dry-run            print the command
#
# The command runs in the current folder with the current environment. Two minutes before the time
# limit the processes get SIGTERM; after exit code 42, preempted and saved, the job is requeued;
# other codes end it. JAX finds the processes by SLURM's own variables.
set -euo pipefail
# shellcheck source=launch/commands.sh
. "$(dirname "${BASH_SOURCE[0]}")/commands.sh"

name='' nodes=1 gpus_per_node=8 time=''
read_flags "name nodes gpus-per-node time" "" "$@"
need name "$name"
# sbatch replaces % in the name of the log; a slash would put it elsewhere.
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
  misuse "--name must be letters, digits, dots, dashes and underscores, not $(quote "$name")."
need_number nodes "$nodes" 1
need_number gpus-per-node "$gpus_per_node" 1
need_program sbatch

flags=(
  --parsable --job-name="$name" --output="$name-%j.log" --open-mode=append
  --nodes="$nodes" --ntasks-per-node="$gpus_per_node" --gpus-per-node="$gpus_per_node"
  --requeue --signal=TERM@120
)
[[ -z $time ]] || flags+=(--time="$time")
flags+=(${extra[@]+"${extra[@]}"})
submit=(sbatch "${flags[@]}" "$here/slurm_job.sh" "$retries" "${command[@]}")

if [[ -n $dry_run ]]; then
  run "${submit[@]}"
  exit 0
fi
job=$(run "${submit[@]}") || {
  say "The job could not be submitted; sbatch says why above."
  exit 1
}
job=${job%%;*} # the name of the cluster may follow
say "Submitted as job $job; its log: tail -F $name-$job.log; to end it: scancel $job"
printf '%s\n' "$job"
