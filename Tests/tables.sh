# Sourced: the kernel tables, weakest first, those that this host runs by itself, and what
# is tested of each.
if [ "$(uname -m)" = aarch64 ]; then
  all_tables="portable neon neon_bf16"
  # A flag of /proc/cpuinfo's for each.
  table_flags="neon asimd
neon_bf16 bf16"
else
  all_tables="portable avx2 avx512 avx512_bf16 amx"
  table_flags="avx2 avx2
avx512 avx512bw
avx512_bf16 avx512_bf16
amx amx_bf16"
fi

# The strongest table of the host, or MLA_MAX_ISA where that is weaker: with it any host
# is tested as one that has no more.
strongest_table() {
  local table flag strongest=portable
  while read -r table flag; do
    grep -qw "$flag" /proc/cpuinfo && strongest=$table
    [ "$table" != "${MLA_MAX_ISA:-}" ] || break
  done <<< "$table_flags"
  [ "${MLA_MAX_ISA:-}" != portable ] || strongest=portable
  echo "$strongest"
}

# The tables from the one after $1 on.
tables_above() {
  local above=${all_tables#*"$1"}
  echo "${above# }"
}

# list_tests XCTEST PATTERN: the Swift tests whose names match, as XCTest takes them.
list_tests() {
  local found
  found=$("$1" --list-tests | grep -P "$2" | paste -sd,)
  [ -n "$found" ] || echo "not ok no Swift test matches $2" >&2
  echo "$found"
}

# What depends on table $1, on a host that has no more: the Swift tests of build $2, and
# the ABI's programs.
test_table() {
  local status=0 modules="KernelTests|MLACoreTests" tests=$2/release/MLAPrefillPackageTests.xctest test
  [ "$1" != amx ] || modules+="|AMXKernelTests"
  export SWIFT_BACKTRACE=enable=no MLA_MAX_ISA=$1 MLA_EXPECT_ISA=$1 MLA_TEST_TABLE=$1
  "$tests" "$(list_tests "$tests" "^($modules)\.")" 2>&1 || status=1
  for test in golden bits shapes one_call interleaved host wrapper vtable layer_backend bad_input arithmetic \
    numbers ds_mla indexer "malformed_calls 30000"; do
    # shellcheck disable=SC2086
    .build/abi/$test || status=1
  done
  return $status
}
