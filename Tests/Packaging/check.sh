# Sourced: one line for a command that should succeed, and what it said where it did not.
#
#   check NAME COMMAND...     sets failed=1

check() {
  local name=$1 said
  if said=$("${@:2}" 2>&1); then echo "ok $name"; else
    echo "not ok $name"
    echo "$said"
    failed=1
  fi
}
