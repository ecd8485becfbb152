#include <dlfcn.h>

#include <string>
#include <utility>

#include "arguments.h"
#include "bindings.h"
#include "log.h"
#include "older_libraries.h"
#include "openmp_loop.h"

MLA_CALL_FIRST_VERSION(dladdr);

namespace mla_python {

namespace {

nb::tuple feature_names(std::uint32_t features) {
  constexpr std::pair<std::uint32_t, const char *> names[] = {
      {MLA_CPU_AVX2, "avx2"},         {MLA_CPU_FMA, "fma"},
      {MLA_CPU_F16C, "f16c"},         {MLA_CPU_AVX512F, "avx512f"},
      {MLA_CPU_AVX512BW, "avx512bw"}, {MLA_CPU_AVX512DQ, "avx512dq"},
      {MLA_CPU_AVX512VL, "avx512vl"}, {MLA_CPU_AVX512_BF16, "avx512_bf16"},
      {MLA_CPU_AMX_TILE, "amx_tile"}, {MLA_CPU_AMX_BF16, "amx_bf16"},
      {MLA_CPU_ASIMD, "asimd"},       {MLA_CPU_ASIMDHP, "asimdhp"},
      {MLA_CPU_BF16, "bf16"},
  };
  nb::list present;
  for (const auto &[bit, name] : names) {
    if (features & bit) present.append(nb::str(name));
  }
  return nb::tuple(present);
}

nb::dict cpu_features() {
  mla_cpu_info info = MLA_CPU_INFO_INIT;
  call_library([&] { return mla_get_cpu_info(&info); });
  nb::dict fields;
  fields["vendor"] = text_of(info.vendor);
  fields["model"] = text_of(info.model);
  fields["features"] = feature_names(info.features);
  fields["best_isa"] = mla_isa_name(info.best_isa);
  fields["isa"] = mla_isa_name(info.isa);
  fields["bf16_isa"] = mla_isa_name(info.bf16_isa);
  fields["fp16_isa"] = mla_isa_name(info.fp16_isa);
  fields["fp32_isa"] = mla_isa_name(info.fp32_isa);
  fields["num_processors"] = info.num_processors;
  return fields;
}

/// A host program may have loaded another file of the same SONAME first.
nb::object library_path() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void *>(&mla_abi_version), &info) == 0 || !info.dli_fname) {
    return nb::none();
  }
  return nb::module_::import_("os").attr("fsdecode")(
      nb::bytes(info.dli_fname, std::char_traits<char>::length(info.dli_fname)));
}

void set_num_threads(nb::handle num_threads) {
  const std::int32_t count = int32_argument(num_threads, "num_threads");
  call_library([&] { return mla_set_num_threads(count); });
}

void set_verbose(nb::handle level, nb::handle to_log) {
  const std::int32_t wanted = int32_argument(level, "level");
  const bool keeps = flag_argument(to_log, "to_log");
  call_library([&] { return mla_set_verbose(wanted, keeps ? log_callback() : nullptr, nullptr); });
}

nb::list stats() {
  nb::list rows;
  for (std::int32_t i = 0; i < mla_stats_size(); ++i) {
    mla_call_stats stats = MLA_CALL_STATS_INIT;
    call_library([&] { return mla_get_stats(i, &stats); });
    if (stats.calls == 0) continue;
    nb::dict row;
    row["entry"] = stats.entry;
    row["kernel"] = stats.kernel;
    row["calls"] = stats.calls;
    row["failures"] = stats.failures;
    row["tokens"] = stats.tokens;
    row["seconds"] = static_cast<double>(stats.nanoseconds) * 1e-9;
    rows.append(row);
  }
  return rows;
}

std::int64_t trim() {
  std::int64_t bytes = 0;
  call_library([&] { return mla_trim(&bytes); });
  return bytes;
}

}  // namespace

void bind_host(nb::module_ &module) {
  module.def("version", &mla_version);
  module.def("abi_version", &mla_abi_version);
  module.def("library_path", &library_path);
  module.def("cpu_features", &cpu_features);
  module.def("cpu_summary", &mla_cpu_summary);
  define(module, "set_num_threads", &set_num_threads);
  module.def("get_num_threads", &mla_get_num_threads);
  module.def("trim", &trim);
  define(module, "set_log_callback", &set_log_callback);
  define(module, "set_verbose", &set_verbose);
  module.def("stats", &stats);
  module.def("reset_stats", &mla_reset_stats);
  define(module, "use_openmp_threads", +[](nb::handle enabled) {
    return use_openmp_threads(flag_argument(enabled, "enabled"));
  });
}

}  // namespace mla_python
