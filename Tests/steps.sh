# Sourced: the steps of a test run. They are carried out side by side, each as soon as
# what it needs has passed, and those named first begin first.
#
#   step NAME "NEEDED STEPS" COMMAND...
#   long_step NAME SECONDS "WHAT IT IS ABOUT" "NEEDED STEPS" COMMAND...
#   run_steps NAME...     and what these need; fails where a step did
#
# A step's output goes to .build/test-logs/STEP.log; a failing step's end of it is shown.
# Its tests are lines that begin with "ok" or "not ok", XCTest's or pytest's; a step
# without any counts as one test. Status 77: it cannot be done here, its last line says why.

logs=$PWD/.build/test-logs
mkdir -p "$logs"
lanes=${TEST_LANES:-$(nproc)}
[ "$lanes" -le 4 ] || lanes=4

steps=() long_steps=() left_out=() not_run=()
declare -A needs=() commands=() seconds_of=() about=() state=() running=() ended=()
passed=0
failed=0

step() {
  steps+=("$1")
  needs[$1]=$2
  commands[$1]=${*:3}
}

# Is begun only where SECONDS, on two quiet cores, are left until the time UNTIL (of
# `date +%s`), and ended where it runs ten minutes longer: what it has shown by then counts.
# What it is about are paths, as Git has them.
long_step() {
  long_steps+=("$1")
  seconds_of[$1]=$2
  about[$1]=$3
  needs[$1]=$4
  commands[$1]=${*:5}
}

# Marks steps, and what they need, as to be done.
want() {
  local name
  for name in "$@"; do
    if [ -z "${commands[$name]:-}" ]; then
      echo "no step $name; there are: ${steps[*]} ${long_steps[*]}" >&2
      exit 2
    fi
    [ -z "${state[$name]:-}" ] || continue
    state[$name]=wanted
    # shellcheck disable=SC2086
    want ${needs[$name]}
  done
}

# Whether all that step $1 needs is over.
is_ready() {
  local needed
  for needed in ${needs[$1]}; do
    case ${state[$needed]} in over | failed | left) ;; *) return 1 ;; esac
  done
}

# What step $1 needs and has not got.
lacking() {
  local needed
  for needed in ${needs[$1]}; do [ "${state[$needed]}" != failed ] || echo "$needed"; done
}

# Of step $1: itself, or what it needs.
has_no_time() {
  local needed
  for needed in ${needs[$1]}; do [ "${state[$needed]}" != left ] || return 0; done
  [ -n "${UNTIL:-}" ] && [ -n "${seconds_of[$1]:-}" ] &&
    [ $(($(date +%s) + seconds_of[$1])) -gt "$UNTIL" ]
}

begin() {
  local name=$1 lacking
  # What an earlier run has left of it would be tested instead.
  lacking=$(lacking "$name" | paste -sd' ')
  if [ -n "$lacking" ]; then
    printf 'NOT RUN %-13s without %s\n' "$name" "$lacking"
    not_run+=("$name")
    state[$name]=failed
    return
  fi
  if has_no_time "$name"; then
    left_out+=("$name")
    state[$name]=left
    return
  fi
  state[$name]=running
  (
    # Told to end, it ends without a word of the shell's.
    trap 'exit 143' TERM
    TIMEFORMAT='%0R %0U %0S'
    { time ${commands[$name]} < /dev/null > "$logs/$name.log" 2>&1; } 2> "$logs/$name.time"
  ) &
  running[$!]=$name
}

# Each step is a process group of its own, which ends with this program.
set -m
trap 'for pid in "${!running[@]}" $alarm; do kill -- "-$pid" 2> /dev/null; done' EXIT
trap 'exit 130' INT TERM

# Has the long steps that still run ended ten minutes after UNTIL.
alarm=
set_alarm() {
  local left=$((${UNTIL:-0} + 600 - $(date +%s)))
  # No long step begins so late.
  [ $left -gt 0 ] || return 0
  trap end_late_steps USR1
  (sleep $left && kill -USR1 $$) &
  alarm=$!
}

end_late_steps() {
  local pid
  for pid in "${!running[@]}"; do
    [ -n "${seconds_of[${running[$pid]}]:-}" ] || continue
    ended[${running[$pid]}]=1
    kill -- "-$pid" 2> /dev/null
  done
}

# Waits for the next step to end, and tells of it.
end_one() {
  local pid name status good bad wall=0 user=0 system=0
  # The shell may wake for nothing, or know no more of one that a signal has ended.
  while true; do
    wait -n -p pid "${!running[@]}"
    status=$?
    [ -z "${pid:-}" ] || break
    for pid in "${!running[@]}"; do kill -0 "$pid" 2> /dev/null || break 2; done
  done
  name=${running[$pid]}
  unset "running[$pid]"
  state[$name]=over
  [ "${ended[$name]:-}" ] || read -r wall user system < "$logs/$name.time"
  good=$(grep -cE "^ok |^Test Case '.*' passed |(^| )PASSED( |$)" "$logs/$name.log")
  bad=$(grep -cE "^not ok |^Test Case '.*' failed |(^| )FAILED( |$)" "$logs/$name.log")
  if [ $status -eq 77 ]; then
    printf 'SKIP %-16s %s\n' "$name" "$(tail -1 "$logs/$name.log")"
    return
  fi
  if [ "${ended[$name]:-}" ] && [ "$bad" -eq 0 ]; then
    printf 'ENDED %-15s %4d tests, for lack of time\n' "$name" "$good"
    state[$name]=left
    left_out+=("$name")
  elif [ $status -eq 0 ] && [ "$bad" -eq 0 ]; then
    [ "$good" -gt 0 ] || good=1
    printf 'PASS %-16s %4d tests %5d s, %5d of processors\n' "$name" "$good" "$wall" $((user + system))
  else
    [ "$bad" -gt 0 ] || bad=1
    state[$name]=failed
    printf 'FAIL %-16s %4d of %d %5d s, see %s\n' "$name" "$bad" $((good + bad)) "$wall" "$logs/$name.log"
    grep -E -A4 "^not ok |error:|Sanitizer" "$logs/$name.log" | head -30
    tail -15 "$logs/$name.log"
  fi
  passed=$((passed + good))
  failed=$((failed + bad))
}

run_steps() {
  local name begun
  set_alarm
  want "$@"
  while true; do
    begun=
    for name in "$@" "${steps[@]}" "${long_steps[@]}"; do
      [ "${state[$name]:-}" = wanted ] && [ ${#running[@]} -lt "$lanes" ] && is_ready "$name" || continue
      begin "$name"
      begun=1
    done
    if [ ${#running[@]} -gt 0 ]; then end_one; elif [ -z "$begun" ]; then break; fi
  done
  [ ${#left_out[@]} -eq 0 ] || echo "LEFT OUT for lack of time: ${left_out[*]}"
  [ ${#not_run[@]} -eq 0 ] || echo "NOT RUN, as what they need has failed: ${not_run[*]}"
  echo "$passed passed, $failed failed in $SECONDS s"
  [ $failed -eq 0 ]
}

# The long steps: first those that are about what was changed last, then the others, every
# day another one first.
long_steps_in_turn() {
  local name path count=${#long_steps[@]} day changed i related=() others=()
  changed=$(git log -5 --name-only --format= 2> /dev/null)
  day=$(($(date +%s) / 86400))
  for ((i = 0; i < count; i++)); do
    name=${long_steps[(day + i) % count]}
    for path in ${about[$name]}; do
      if grep -q "^$path" <<< "$changed"; then
        related+=("$name")
        continue 2
      fi
    done
    others+=("$name")
  done
  echo "${related[@]}" "${others[@]}"
}
