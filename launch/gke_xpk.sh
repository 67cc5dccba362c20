#!/usr/bin/env bash
# Run a command as an xpk workload: on all workers of TPU slices of a GKE cluster.
#
#   launch/gke_xpk.sh --name=pnet --cluster=CLUSTER --type=v5litepod-64 --image=IMAGE --yes -- \
#       python -m pnet_jax.main --config=configs/pnet300m_22k.py --workdir=/mnt/runs/pnet300m_22k
#
# --name=NAME        of the workload
# --cluster=CLUSTER  that `xpk cluster create` has made
# --type=TYPE        of each slice: v4-64, v5litepod-64, v5p-64, v6e-64 ...
# --image=IMAGE      with pnet_jax installed; docs/tpu.md shows how to build it
# --num-slices=N     (1)
# --zone=ZONE, --project=PROJECT  (those of gcloud's configuration)
# --extra=FLAG       passed on to `xpk workload create`, e.g. --extra=--spot; may be repeated
# --retries=N        how often the cluster may run it again (10)
# --yes              delete the workload when it has ended
# --dry-run          print the commands
#
# The cluster itself runs the command again after exit code 42, preempted and saved, and after 127
# to 255, lost workers; other codes end it. Prints the log of worker 0. After Ctrl-C the workload
# goes on. Exit code 0 if it completed, 1 if it failed.
set -euo pipefail
# shellcheck source=launch/commands.sh
. "$(dirname "${BASH_SOURCE[0]}")/commands.sh"

name='' cluster='' type='' image='' num_slices=1 zone='' project='' yes=''
read_flags "name cluster type image num-slices zone project" "yes" "$@"
need_name name "$name" 39
need_plain cluster "$cluster"
need_plain type "$type"
need_plain image "$image"
[[ -z $zone ]] || need_plain zone "$zone"
[[ -z $project ]] || need_plain project "$project"
need_number num-slices "$num_slices" 1
# xpk writes the command into one line of a YAML file.
[[ ${command[*]} != *$'\n'* ]] || misuse "The command must not contain a line break."
need_program xpk
need_program kubectl

readonly POLL_SECS=10
readonly PATIENCE=15 # polls without an answer
# Longer than the trainer takes to save.
readonly GRACE_SECS=120

where=(--cluster="$cluster")
[[ -z $zone ]] || where+=(--zone="$zone")
[[ -z $project ]] || where+=(--project="$project")
delete=(xpk workload delete --workload="$name" "${where[@]}" --force)
labels=jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=0
labels+=,batch.kubernetes.io/job-completion-index=0

# What the container's shell is to run: `exec`, as xpk sends SIGTERM to that shell, and $ doubled,
# as Kubernetes expands $(NAME) itself and takes $$ for $.
in_container() {
  local text two='$$'
  text=$(quote "${command[@]}")
  printf 'exec %s' "${text//[$]/$two}"
}

create() {
  run xpk workload create --workload="$name" "${where[@]}" --tpu-type="$type" \
    --num-slices="$num_slices" --docker-image="$image" --max-restarts="$retries" \
    --termination-grace-period-seconds="$GRACE_SECS" ${extra[@]+"${extra[@]}"} \
    --command="$(in_container)"
}
ended() {
  run kubectl get jobset "$name" --namespace=default '--output=jsonpath={.status.terminalState}'
}
phase() {
  run kubectl get pods --namespace=default --selector="$labels" \
    '--output=jsonpath={.items[*].status.phase}'
}
follow() { run kubectl logs --follow --tail=-1 --namespace=default --selector="$labels"; }

if [[ -n $dry_run ]]; then
  create && ended && phase && follow
  [[ -z $yes ]] || run "${delete[@]}"
  exit 0
fi

exists='' # whether the workload is there
over=''   # whether it has ended

finish() {
  local code=$?
  trap '' HUP INT TERM
  [[ -n $exists ]] || exit "$code"
  if [[ -n $over && -n $yes ]] && run "${delete[@]}"; then exit "$code"; fi
  say "The workload $name is not deleted; delete it with: $(quote "${delete[@]}")"
  exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
  say "$1"
  exit 1
}

create || fail "The workload $name could not be created; xpk says why above."
exists=yes
shown='' silent=0
while :; do
  if answer=$(ended 2>&1); then
    silent=0
  else
    silent=$((silent + 1))
    ((silent < PATIENCE)) || fail "kubectl does not tell the state of $name: ${answer##*$'\n'}"
  fi
  case ${answer##*$'\n'} in
    Complete | Completed)
      over=yes
      exit 0
      ;;
    Failed)
      over=yes
      fail "The workload $name failed; the log of worker 0 or that of another worker says why."
      ;;
  esac
  now=$(phase 2>/dev/null) || now=''
  if [[ $now != "$shown" ]]; then
    say "Worker 0 is ${now:-not there yet}."
    shown=$now
  fi
  # Returns when the worker ends or the connection is lost.
  if [[ $now == *Running* ]]; then follow || true; fi
  pause "$POLL_SECS"
done
