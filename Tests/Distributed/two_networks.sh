#!/bin/bash
# two_networks.sh COMMAND...: runs COMMAND as on one of two machines: in a network namespace
# that has a cable to another one and nothing else. `nsenter --target $OTHER --net` gets there;
# the cable's ends are mla0 with 10.77.0.1 here, mla1 with 10.77.0.2 there. Exits with 77 and a
# reason where namespaces are not permitted.
set -u

if [ -z "${MLA_IN_NETWORK:-}" ]; then
  for way in "unshare --net" "unshare --user --map-root-user --net"; do
    # shellcheck disable=SC2086
    $way ip link add mla0 type veth peer name mla1 2> /dev/null &&
      exec $way env MLA_IN_NETWORK=1 "$0" "$@"
  done
  echo "no network namespaces: $(unshare --net ip link add mla0 type veth peer name mla1 2>&1 | head -1)"
  exit 77
fi

ip link set lo up
unshare --net sleep infinity &
other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
set -e
ip link add mla0 type veth peer name mla1 netns $other
ip address add 10.77.0.1/24 dev mla0
ip link set mla0 up
there() { nsenter --target $other --net "$@"; }
there ip link set lo up
there ip address add 10.77.0.2/24 dev mla1
there ip link set mla1 up
OTHER=$other "$@"
