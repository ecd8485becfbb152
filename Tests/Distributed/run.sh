#!/bin/bash
# The example on MPI with 1, 2 and 4 ranks, across two networks, and with a rank that dies.
#
#   Tests/Distributed/run.sh STAGE     the installed library
set -u
cd "$(dirname "$0")/../.." || exit 1
stage=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! Sources/Packaging/debian-packages.sh mpi > "$work/log" 2>&1; then
  echo "ok mpi # SKIP no MPI: $(tail -1 "$work/log")"
  exit 0
fi

failed=0
report() { # report NAME STATUS
  if [ "$2" = 0 ]; then
    echo "ok $1"
  else
    echo "not ok $1"
    cat "$work/log"
    failed=1
  fi
}

PKG_CONFIG_PATH="$stage/lib/pkgconfig" cmake -S examples/mpi -B "$work/build" \
  -DCMAKE_PREFIX_PATH="$stage" -DCMAKE_BUILD_TYPE=Release > "$work/log" 2>&1 &&
  cmake --build "$work/build" >> "$work/log" 2>&1
report "mpi: the example builds" $?
example=$work/build/context_parallel
export LD_LIBRARY_PATH=$stage/lib
# Tests may be root's, and have more ranks than processors.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none

for ranks in 1 2 4; do
  timeout 120 mpirun -n $ranks "$example" > "$work/log" 2>&1 &&
    [ "$(grep -c "bits are one rank's" "$work/log")" = $ranks ]
  report "mpi: $ranks ranks, as one rank and double precision" $?
done

# Some without tokens, a last part that is not full.
timeout 120 mpirun -n 4 "$example" 70 > "$work/log" 2>&1
report "mpi: ranks without tokens" $?

# mpirun has a way of its own to get to the other machine.
# shellcheck disable=SC2016
printf '#!/bin/sh\nshift\nexec nsenter --target $OTHER --net sh -c "$*"\n' > "$work/there"
chmod +x "$work/there"
network=10.77.0.0/24
Tests/Distributed/two_networks.sh timeout 120 mpirun -H 10.77.0.1:2,10.77.0.2:2 -n 4 \
  --mca plm_rsh_agent "$work/there" --mca btl tcp,self --mca btl_tcp_if_include $network \
  --mca oob_tcp_if_include $network -x LD_LIBRARY_PATH "$example" > "$work/log" 2>&1
status=$?
if [ $status = 77 ]; then
  echo "ok mpi: two networks # SKIP $(tail -1 "$work/log")"
else
  [ "$(grep -c "bits are one rank's" "$work/log")" = 4 ] || status=1
  report "mpi: two networks, two ranks in each" $status
fi

# A prompt that takes longer than it is let live.
# shellcheck disable=SC2016
timeout 60 mpirun -n 4 sh -c \
  '[ $OMPI_COMM_WORLD_RANK != 2 ] || { (sleep 2; kill -9 $$) & }; exec "$0" 60000' \
  "$example" > "$work/log" 2>&1
status=$?
[ $status != 0 ] && [ $status != 124 ] && grep -q "signal 9" "$work/log"
report "mpi: a rank that dies ends the job" $?
exit $failed
