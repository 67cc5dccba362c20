#!/usr/bin/env bash
# Run a command on all workers of a Cloud TPU slice that is created for it as a queued resource.
#
#   launch/tpu_vm.sh --name=pnet --zone=us-west4-a --type=v5litepod-64 --spot --yes -- \
#       python -m pnet_jax.main --config=configs/pnet300m_22k.py --workdir=/mnt/runs/pnet300m_22k
#
# --name=NAME             of the queued resource; one that exists is used as it is
# --zone=ZONE             e.g. us-west4-a
# --type=TYPE             the accelerator type: v4-64, v5litepod-64, v5p-64, v6e-64 ...
# --num-slices=N          several slices as one run (1)
# --spot                  ask for spot capacity, which may be preempted
# --project=PROJECT       (that of gcloud's configuration)
# --runtime-version=NAME  (the one that Google recommends for JAX on the type)
# --extra=FLAG            passed on to `gcloud compute tpus queued-resources create`; may be repeated
# --retries=N             how often to go on after a preemption (10)
# --yes                   delete NAME when the run is over, and when a preemption left it useless
# --dry-run               print the commands
#
# Ships pnet_jax/, configs/ and launch/ as they are here to ~/pnet_jax of each worker, makes .venv
# there, runs the command in that folder with .venv/bin first on PATH, and prints the log of worker
# 0. The work directory must be shared by the workers and outlive them; docs/tpu.md shows how.
# The command outlives the connection: after Ctrl-C it goes on; this script, started again, ends it
# (by SIGTERM, so that it saves) and starts it anew. Without --yes nothing is deleted. The exit code
# is the command's; 42 if it was preempted and may not be, or was too often, run again.
# Several workers need the key in the agent: ssh-add ~/.ssh/google_compute_engine
set -euo pipefail
# shellcheck source=launch/commands.sh
. "$(dirname "${BASH_SOURCE[0]}")/commands.sh"

name='' zone='' type='' project='' runtime_version='' num_slices=1 spot='' yes=''
read_flags "name zone type project runtime-version num-slices" "spot yes" "$@"
need_name name "$name" 60
need_plain zone "$zone"
need_plain type "$type"
[[ -z $project ]] || need_plain project "$project"
need_number num-slices "$num_slices" 1
need_program gcloud
if [[ -z $runtime_version ]]; then
  case $type in
    v2-* | v3-* | v4-*) runtime_version=tpu-ubuntu2204-base ;;
    v5litepod-*) runtime_version=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime_version=v2-alpha-tpuv5 ;;
    v6e-*) runtime_version=v2-alpha-tpuv6e ;;
    *) misuse "No runtime version is known for --type $(quote "$type"); give --runtime-version." ;;
  esac
fi

readonly POLL_SECS=30
readonly PATIENCE=20 # polls without an answer
where=("--zone=$zone")
[[ -z $project ]] || where+=("--project=$project")
tpus=(gcloud compute tpus queued-resources)
delete=("${tpus[@]}" delete "$name" "${where[@]}" --force --quiet)

create() {
  local flags=(--accelerator-type="$type" --runtime-version="$runtime_version")
  if ((num_slices > 1)); then
    flags+=(--node-count="$num_slices" --node-prefix="$name")
  else
    flags+=(--node-id="$name")
  fi
  [[ -z $spot ]] || flags+=(--spot)
  run "${tpus[@]}" create "$name" "${where[@]}" "${flags[@]}" ${extra[@]+"${extra[@]}"}
}

describe() { run "${tpus[@]}" describe "$name" "${where[@]}" '--format=value(state.state)'; }

# The state of the queued resource, ABSENT if there is none, empty if gcloud does not say.
state() {
  local answer
  if answer=$(describe 2>&1); then
    # gcloud may add notes of its own.
    grep -xE '[A-Z_]+' <<<"$answer" || true
  elif [[ $answer == *NOT_FOUND* ]]; then
    printf ABSENT
  else
    printf '%s\n' "$answer" >&2
  fi
}

# on WORKERS COMMAND: run a shell command on worker 0 or on all. gcloud reaches 64 workers at a time
# and then waits for them, so that only what ends by itself may be run on all.
on() { run "${tpus[@]}" ssh "$name" "${where[@]}" --node="$1" --worker="$1" --command="$2"; }

ship() {
  local archive=$root/build/$name.tar.gz setup=("$root"/setup.*)
  # What was compiled here may not fit there.
  run mkdir -p "$root/build" &&
    run tar -czf "$archive" --exclude=__pycache__ --exclude='*.so' -C "$root" pnet_jax configs \
      launch "${setup[@]##*/}" pyproject.toml constraints.txt README.md LICENSE &&
    run "${tpus[@]}" scp "$archive" "$name:pnet_jax.tar.gz" "${where[@]}" --node=all --worker=all
}

worker=pnet_jax/launch/tpu_worker.sh
install() { on all "mkdir -p pnet_jax && tar -xzf pnet_jax.tar.gz -C pnet_jax && bash $worker install"; }
start() { on all "bash $worker start $(quote "${command[@]}")"; }
follow() { on 0 "bash $worker follow"; }
result() { on 0 "bash $worker result"; }

if [[ -n $dry_run ]]; then
  create && describe && ship && install && start && follow && result
  [[ -z $yes ]] || run "${delete[@]}"
  exit 0
fi

exists='' # whether NAME is there, as far as is known
over=''   # whether the run is known to be over

finish() {
  local code=$?
  trap '' HUP INT TERM
  [[ -n $exists ]] || exit "$code"
  if [[ -n $over && -n $yes ]] && run "${delete[@]}"; then exit "$code"; fi
  say "The queued resource $name is not deleted and may cost money; delete it with: $(quote "${delete[@]}")"
  exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Ends after a run that is over, so that NAME may be deleted.
end() {
  over=yes
  exit "$1"
}

fail() {
  say "$1"
  exit 1
}

preemptions=0
count_preemption() {
  if ((preemptions >= retries)); then
    say "Preempted, and all $retries retries are used; the same command goes on from the checkpoint."
    end "$PREEMPTED"
  fi
  preemptions=$((preemptions + 1))
}

# Creates NAME if need be and waits until it is active.
make_ready() {
  local now shown='' silent=0
  while :; do
    now=$(state)
    case $now in
      ABSENT)
        if [[ -n $exists ]]; then
          exists=''
          fail "The queued resource $name was deleted meanwhile."
        fi
        # Even if creating fails or is interrupted, something may be there.
        exists=yes
        create || {
          [[ $(state) != ABSENT ]] || exists=''
          fail "The queued resource $name could not be created; gcloud says why above."
        }
        continue
        ;;
      ACTIVE)
        exists=yes
        return
        ;;
      SUSPENDED)
        exists=yes
        if [[ -z $yes ]]; then
          say "$name was preempted and has to be deleted before it can be asked for again, which needs --yes."
          exit "$PREEMPTED"
        fi
        count_preemption
        run "${delete[@]}" || fail "The queued resource $name could not be deleted; gcloud says why above."
        exists=''
        continue
        ;;
      FAILED)
        exists=yes
        run "${tpus[@]}" describe "$name" "${where[@]}" >&2 || true
        say "The request for $name failed; its description above says why."
        end 1
        ;;
      '')
        silent=$((silent + 1))
        ((silent < PATIENCE)) || fail "gcloud does not tell the state of $name; see its errors above."
        ;;
      *) exists=yes ;;
    esac
    [[ -z $now ]] || silent=0
    if [[ $now != "$shown" ]]; then
      say "$name is ${now:-not answering}; waiting until it is ACTIVE (Ctrl-C leaves it in the queue)."
      shown=$now
    fi
    pause "$POLL_SECS"
  done
}

# Prints the log of worker 0 until its command ends: sets `outcome` to the exit code, or to "lost" if
# there is none to be had, as when the slice went away.
watch() {
  local answer now lost
  outcome=lost
  for ((lost = 0; lost < PATIENCE; lost++)); do
    follow || true
    answer=$(result) || answer=''
    answer=${answer##*$'\n'}
    if [[ $answer =~ ^[0-9]+$ ]]; then
      outcome=$answer
      return
    elif [[ $answer == running ]]; then
      say "The connection was lost; the run goes on."
      lost=0
    else
      now=$(state)
      [[ -z $now || $now == ACTIVE ]] || return 0
      say "Worker 0 does not answer, or its run was killed; waiting to see whether $name was preempted."
    fi
    pause "$POLL_SECS"
  done
  fail "$name was not preempted, yet worker 0 does not answer or its run left no exit code."
}

unreachable=0
while :; do
  make_ready
  code=0
  { ship && install && start; } || code=$?
  if ((code == 9)); then
    say "Installing on the workers failed; the reason stands above."
    end 1
  elif ((code)); then
    # Perhaps it is being preempted, which the state shows only after a while.
    unreachable=$((unreachable + 1))
    ((unreachable < PATIENCE)) || fail "The workers of $name cannot be reached; gcloud says why above."
    pause "$POLL_SECS"
    continue
  fi
  unreachable=0
  watch
  case $outcome in
    0) end 0 ;;
    lost) ;;
    "$PREEMPTED")
      say "Preempted and saved."
      pause "$POLL_SECS"
      # A slice that goes away is counted when it is seen to be gone; one that stays is used again.
      [[ $(state) == SUSPEND* ]] || count_preemption
      ;;
    *)
      [[ $(state) == SUSPEND* ]] || end "$outcome"
      say "The run ended with code $outcome while $name was being preempted."
      ;;
  esac
done
