# Sourced: the kernel tables, weakest first, and those that this host runs by itself.
all_tables="portable avx2 avx512 avx512_bf16 amx"

# The strongest table of the host, or MLA_MAX_ISA where that is weaker: with it any host
# is tested as one that has no more.
strongest_table() {
  local table flag strongest=portable
  while read -r table flag; do
    grep -qw "$flag" /proc/cpuinfo && strongest=$table
    [ "$table" != "${MLA_MAX_ISA:-}" ] || break
  done <<< "avx2 avx2
avx512 avx512bw
avx512_bf16 avx512_bf16
amx amx_bf16"
  [ "${MLA_MAX_ISA:-}" != portable ] || strongest=portable
  echo "$strongest"
}

# The tables from the one after $1 on.
tables_above() {
  local above=${all_tables#*"$1"}
  echo "${above# }"
}
