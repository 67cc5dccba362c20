#!/usr/bin/env bash
# The part of launch/tpu_vm.sh that runs on each worker of a TPU slice, in the shipped folder.
#
#   tpu_worker.sh install           end a run that is left over, then make .venv
#   tpu_worker.sh start COMMAND...  start the command; it outlives the connection
#   tpu_worker.sh follow            print the log until the command ends
#   tpu_worker.sh result            print its exit code, "running", or "none"
#
# run.log, run.pid and run.code are beside the code. `install` ends with code 9 if it fails, which
# tells it from a lost connection.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Longer than the trainer takes to save.
readonly GRACE_SECS=120

is_running() { [[ -s run.pid ]] && kill -0 "$(<run.pid)" 2>/dev/null; }

end_leftover() {
  local end=$((SECONDS + GRACE_SECS))
  is_running || return 0
  echo "Ending the run that is still going ..."
  kill -TERM "$(<run.pid)" 2>/dev/null || true
  while is_running && ((SECONDS < end)); do sleep 0.5; done
  kill -KILL -- "-$(<run.pid)" 2>/dev/null || true
}

# Runs the command and writes down its exit code. SIGTERM goes to the command alone, not to the
# processes that it has started to load data.
mind() {
  local told=yes code child
  "$@" &
  child=$!
  trap 'told=yes; kill -TERM "$child" 2>/dev/null || true' TERM
  # A signal ends `wait` before the command has ended.
  while [[ -n $told ]]; do
    told='' code=0
    wait "$child" || code=$?
  done
  echo "$code" >run.new
  mv run.new run.code
}

install() {
  # The images come with Python 3.10; uv brings the version that the constraints are made for.
  python3 -m pip install --quiet --user --upgrade uv &&
    python3 -m uv venv --quiet --allow-existing --python 3.11 .venv &&
    python3 -m uv pip install --quiet --python .venv/bin/python --constraint constraints.txt \
      --editable '.[tpu]'
}

case $1 in
  install)
    end_leftover
    install || exit 9
    ;;
  start)
    shift
    rm -f run.code
    export PATH=$PWD/.venv/bin:$PATH
    # A session of its own: hanging up does not reach it, and all of it can be killed.
    setsid bash launch/tpu_worker.sh mind "$@" </dev/null >run.log 2>&1 &
    echo $! >run.pid
    ;;
  mind)
    shift
    mind "$@"
    ;;
  follow)
    # From the beginning, unless the connection was lost in between.
    tail -n 1000 -F --sleep-interval=0.2 --pid="$(<run.pid)" run.log
    ;;
  result)
    if [[ -s run.code ]]; then
      cat run.code
    elif is_running; then
      echo running
    else
      echo none
    fi
    ;;
esac
