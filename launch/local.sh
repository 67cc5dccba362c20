#!/usr/bin/env bash
# Run a command as N processes on this machine that find each other through JAX.
#
#   launch/local.sh --processes=2 -- python -m pnet_jax.main --config=FILE --workdir=DIR
#
# --processes=N   how many (2)
# --retries=N     how often to run it again after exit code 42, preempted and saved (0)
# --grace-secs=N  how long the others may take to end after SIGTERM, before SIGKILL (120)
# --dry-run       print what would be run
#
# Each process gets JAX_COORDINATOR_ADDRESS (a free port of this machine), JAX_NUM_PROCESSES and
# JAX_PROCESS_ID; on the CPU they talk through gloo unless JAX_CPU_COLLECTIVES_IMPLEMENTATION says
# otherwise. Lines of output carry the number of their process. When one process fails, all are
# ended. SIGTERM and Ctrl-C go to all. The exit code is that of the first process to fail, or 0.
set -euo pipefail
# shellcheck source=launch/commands.sh
. "$(dirname "${BASH_SOURCE[0]}")/commands.sh"

processes=2 grace_secs=120 retries=0
read_flags "processes grace-secs" "" "$@"
need_number processes "$processes" 1
need_number grace-secs "$grace_secs" 0
((!${#extra[@]})) || misuse "There is no flag --extra; --help lists them."
[[ -n $dry_run ]] || type -P -- "${command[0]}" >/dev/null ||
  misuse "The command $(quote "${command[0]}") is not found."

# A port that nobody answers on, below the range that systems give to outgoing connections.
free_port() {
  local port=$((20000 + RANDOM % 12000))
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    port=$((20000 + RANDOM % 12000))
  done
  printf '%s' "$port"
}

# process_of RANK PORT: sets `process` to the command of one process.
process_of() {
  process=(
    env "JAX_COORDINATOR_ADDRESS=127.0.0.1:$2" "JAX_NUM_PROCESSES=$processes" "JAX_PROCESS_ID=$1"
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION=${JAX_CPU_COLLECTIVES_IMPLEMENTATION:-gloo}"
    "${command[@]}"
  )
}

prefix() {
  local line
  while IFS= read -r line || [[ -n $line ]]; do printf '[%s] %s\n' "$1" "$line"; done
}

pids=() printers=() told='' pipes=''

# signal_all SIGNAL [-]: to all processes, with - to all that they have started, too.
signal_all() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill "-$1" -- "${2:-}$pid" 2>/dev/null || true; done
}

forward() {
  told=$1
  signal_all "$1"
}
trap 'forward TERM' HUP TERM
trap 'forward INT' INT

clean_up() {
  signal_all KILL -
  [[ -z $pipes ]] || rm -rf -- "$pipes"
}
trap clean_up EXIT

# Runs all processes once; returns the code of the first that fails, else 0.
run_once() {
  local port rank code first='' left
  port=$(free_port)
  pipes=$(mktemp -d)
  pids=() printers=()
  # Job control: each process leads a process group, and gets no SIGINT but the one forwarded.
  set -m
  for ((rank = 0; rank < processes; rank++)); do
    process_of "$rank" "$port"
    mkfifo "$pipes/$rank"
    prefix "$rank" <"$pipes/$rank" &
    printers+=($!)
    "${process[@]}" </dev/null >"$pipes/$rank" 2>&1 &
    pids+=($!)
  done
  set +m
  [[ -z $told ]] || signal_all "$told" # it came while they were being started

  local deadline='' killed='' codes=()
  left=$processes
  while ((left)); do
    for ((rank = 0; rank < processes; rank++)); do
      [[ -z ${codes[rank]:-} ]] || continue
      ! kill -0 "${pids[rank]}" 2>/dev/null || continue
      code=0
      wait "${pids[rank]}" 2>/dev/null || code=$?
      codes[rank]=$code
      left=$((left - 1))
      if ((code)) && [[ -z $first ]]; then
        first=$code
        ((!left)) || say "Process $rank ended with code $code; ending the others."
        signal_all TERM
      fi
    done
    if [[ -n $first$told && -z $deadline ]]; then deadline=$((SECONDS + grace_secs)); fi
    if [[ -n $deadline && -z $killed ]] && ((left && SECONDS >= deadline)); then
      killed=yes
      say "Not all processes ended within $grace_secs s of SIGTERM; killing them."
      signal_all KILL -
    fi
    ((!left)) || sleep 0.2
  done
  signal_all KILL -
  # All that could write to the pipes is gone.
  wait "${printers[@]}" || true
  rm -rf -- "$pipes"
  pids=() pipes=''
  return "${first:-0}"
}

if [[ -n $dry_run ]]; then
  for ((rank = 0; rank < processes; rank++)); do
    process_of "$rank" PORT
    run "${process[@]}"
  done
  exit 0
fi

for ((attempt = 0; ; attempt++)); do
  code=0
  run_once || code=$?
  ((code == PREEMPTED && attempt < retries)) && [[ -z $told ]] || exit "$code"
  say "Preempted and saved; running the same command again ($((attempt + 1)) of $retries)."
done
