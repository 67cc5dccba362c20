# shellcheck shell=bash
# What the launchers share: reading flags, quoting, and running a command or only printing it.
# Sourced, never run. Written for bash 3.2 and later.
# shellcheck disable=SC2034 # the launchers use these variables

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
me=launch/$(basename "$0")

dry_run=''
retries=10
extra=()
command=()

# The code by which the trainer says that it was told to end and has saved.
readonly PREEMPTED=42

say() { printf '%s: %s\n' "$me" "$1" >&2; }

# pause SECS: in short naps, as bash heeds a signal only when the program that it waits for has ended.
pause() {
  local left=$1
  for (( ; left > 0; left -= 2)); do sleep 2; done
}

# A mistake in the use: one sentence, exit 2.
misuse() {
  say "$1"
  exit 2
}

# The comment at the head of the script is its help.
show_help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit 0
}

# read_flags "VALUE FLAGS" "SWITCHES" ARGUMENTS: sets a variable for each flag that is given
# (--node-count to node_count), `extra` to all of --extra and `command` to what follows `--`.
read_flags() {
  local values=" retries extra $1 " switches=" dry-run $2 " flag value
  shift 2
  while (($#)); do
    case $1 in
      --)
        shift
        command=("$@")
        break
        ;;
      -h | --help) show_help ;;
    esac
    [[ $1 =~ ^--([a-z][a-z-]*)(=.*)?$ ]] ||
      misuse "The argument $(quote "$1") is no flag; flags come first, then -- and the command."
    flag=${BASH_REMATCH[1]}
    if [[ $switches == *" $flag "* ]]; then
      [[ $1 != *=* ]] || misuse "--$flag takes no value."
      value=yes
    elif [[ $values != *" $flag "* ]]; then
      misuse "There is no flag --$flag; --help lists them."
    elif [[ $1 == *=* ]]; then
      value=${1#*=}
    else
      shift
      (($#)) || misuse "--$flag needs a value."
      [[ $1 != -* ]] || misuse "--$flag needs a value; write --$flag=VALUE if it starts with a dash."
      value=$1
    fi
    [[ -n $value ]] || misuse "--$flag needs a value."
    if [[ $flag == extra ]]; then
      extra+=("$value")
    else
      printf -v "${flag//-/_}" %s "$value"
    fi
    shift
  done
  need_number retries "$retries" 0
  ((${#command[@]})) || misuse "Give the command to run after --, as in: -- python -m pnet_jax.main ..."
  [[ ${command[0]} != -* && -n ${command[0]} ]] || misuse "$(quote "${command[0]}") is no command."
}

# need_number FLAG VALUE LEAST
need_number() {
  if [[ ! $2 =~ ^(0|[1-9][0-9]{0,5})$ ]] || (($2 < $3)); then
    misuse "--$1 must be a whole number of at least $3, not $(quote "$2")."
  fi
}

# need_name FLAG VALUE LONGEST: the names that Google Cloud and Kubernetes take.
need_name() {
  need "$1" "$2"
  if [[ ! $2 =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || ((${#2} > $3)); then
    misuse "--$1 must be lower-case letters, digits and inner dashes, at most $3, not $(quote "$2")."
  fi
}

# need_plain FLAG VALUE: what no shell takes for anything else, as xpk gives it to one unquoted.
need_plain() {
  need "$1" "$2"
  [[ $2 =~ ^[A-Za-z0-9][A-Za-z0-9._:/@-]*$ ]] ||
    misuse "--$1 must be letters, digits and any of . _ : / @ -, not $(quote "$2")."
}

# need FLAG VALUE
need() { [[ -n $2 ]] || misuse "--$1 is needed; --help explains it."; }

need_program() {
  [[ -n $dry_run ]] || type -P "$1" >/dev/null ||
    misuse "The program $1 is not installed or not on PATH; --dry-run works without it."
}

# The words, quoted so that any POSIX shell reads them back as they are, on one line.
quote() {
  local word separator='' plain='^(--[a-z-]+=)?[A-Za-z0-9_@%+:,./-]+$' escape="'\\''"
  for word; do
    [[ $word =~ $plain ]] || word="'${word//\'/$escape}'"
    printf '%s%s' "$separator" "$word"
    separator=' '
  done
}

# Runs a command after showing it; with --dry-run it is only printed, on standard output.
run() {
  if [[ -n $dry_run ]]; then
    printf '%s\n' "$(quote "$@")"
  else
    printf '+ %s\n' "$(quote "$@")" >&2
    "$@"
  fi
}
