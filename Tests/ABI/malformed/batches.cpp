// Malformed backend objects, metadata and context plans.
//
// SPDX-License-Identifier: Apache-2.0
#include "rules.hpp"

namespace malformed {
namespace {

constexpr mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;

struct Create {
  Create() : config(test::Model{2, 8, 4, 8, 16}.config()) {}

  mla_status invoke() {
    const mla_status status = mla_backend_create(name, pointer, place);
    if (status == MLA_OK) mla_backend_destroy(backend);
    return status;
  }
  bool untouched() const { return backend == canary<mla_backend>(); }

  const char* name = "CPU";
  Padded<mla_backend_config> config;
  const mla_backend_config* pointer = &config.value;
  mla_backend* backend = canary<mla_backend>();
  mla_backend** place = &backend;
};

/// What no dimension is, the numbers next to them among these.
std::int32_t beyond(Random& random) {
  return random.any_of<std::int32_t>({65537, INT32_MAX, -1, random.negative()});
}

std::vector<Rule<Create>> create_rules() {
  std::vector<Rule<Create>> rules;
  add_struct_rules(rules, "config", [](Create& c) -> auto& { return c.config; },
                   [](Create& c) -> auto& { return c.pointer; });
  const auto add = [&](const char* field, auto apply, mla_status status = invalid) {
    rules.push_back({field, status, [=](Create& c, Random& random) { apply(c, random); }});
  };
  add("name", [](Create& c, Random&) { c.name = nullptr; });
  add("NO_SUCH", [](Create& c, Random&) { c.name = "NO_SUCH"; }, MLA_ERROR_NOT_REGISTERED);
  add("CUSTOM", [](Create& c, Random&) { c.name = "CUSTOM"; }, MLA_ERROR_NOT_REGISTERED);
  add("name", [](Create& c, Random&) { c.name = "\xff\xfe"; });
  add("at most 255 bytes", [](Create& c, Random&) {
    static const std::string name(256, 'A');
    c.name = name.c_str();
  });
  add("num_heads", [](Create& c, Random& random) {
    c.config.value.num_heads = random.any_of<std::int32_t>({0, -1, INT32_MIN, 65537, random.negative()});
  });
  add("scale", [](Create& c, Random& random) {
    c.config.value.scale = random.any_of<double>({INFINITY, -INFINITY, NAN, 0x1p-127, -0x1.8p127});
  });
  add("qk_nope_head_dim",
      [](Create& c, Random& random) { c.config.value.qk_nope_head_dim = beyond(random); });
  add("qk_rope_head_dim",
      [](Create& c, Random& random) { c.config.value.qk_rope_head_dim = beyond(random); });
  add("qk_nope_head_dim", [](Create& c, Random&) {
    c.config.value.qk_nope_head_dim = c.config.value.qk_rope_head_dim = 0;
  });
  add("v_head_dim", [](Create& c, Random& random) {
    c.config.value.v_head_dim = random.any_of<std::int32_t>({0, beyond(random)});
  });
  add("kv_lora_rank",
      [](Create& c, Random& random) { c.config.value.kv_lora_rank = beyond(random); });
  add("max_isa", [](Create& c, Random& random) {
    c.config.value.max_isa = random.any_of<std::int32_t>({8, -1, INT32_MAX, random.negative()});
  });
  add("device_type", [](Create& c, Random& random) {
    c.config.value.device_type = random.any_of<std::int32_t>(
        {MLA_DEVICE_CUDA_HOST, MLA_DEVICE_ROCM_HOST, 77, INT32_MAX, random.negative()});
  });
  const auto on_gpu = [](Create& c, Random& random) {
    c.config.value.device_type = random.any_of<std::int32_t>({MLA_DEVICE_CUDA, MLA_DEVICE_ROCM});
  };
  add("device_type", on_gpu, MLA_ERROR_UNSUPPORTED_HARDWARE);
  add("device_id", [](Create& c, Random& random) {
    c.config.value.device_id = random.any_of<std::int32_t>({1, INT32_MAX, random.negative()});
  });
  add("backend", [](Create& c, Random&) { c.place = nullptr; });
  return rules;
}

struct Clone {
  mla_status invoke() {
    const mla_status status = mla_backend_clone(backend, place);
    if (status == MLA_OK) mla_backend_destroy(clone);
    return status;
  }
  bool untouched() const { return clone == canary<mla_backend>(); }

  static mla_backend* object() {
    static mla::backend* const made =
        new mla::backend("CPU", test::Model{2, 8, 4, 8, 16}.config());
    return made->get();
  }

  mla_backend* backend = object();
  mla_backend* clone = canary<mla_backend>();
  mla_backend** place = &clone;
};

mla_backend* many_heads() {
  static mla::backend* const made =
      new mla::backend("FLASHINFER", test::Model{65536, 8, 4, 8, 16}.config());
  return made->get();
}

struct Prepare {
  Prepare()
      : metadata(MLA_PREFILL_METADATA_INIT),
        chunks{MLA_CONTEXT_CHUNK_INIT, MLA_CONTEXT_CHUNK_INIT} {
    for (std::int32_t i = 0; i < 2; ++i) {
      chunks[i].index = i;
      chunks[i].num_requests = 2;
      chunks[i].query_start_loc = chunk_q.data();
      chunks[i].cu_seq_lens = chunk_kv.data();
    }
    metadata.value.num_requests = 3;
    metadata.value.query_start_loc = q_loc.data();
    metadata.value.chunks = chunks;
    metadata.value.num_chunks = 2;
  }

  mla_status invoke() { return mla_prepare_metadata(backend, pointer); }
  bool untouched() const { return true; }

  mla_backend* backend = Clone::object();
  test::Offsets q_loc{0, 3, 3, 9}, chunk_q{0, 3, 6}, chunk_kv{0, 2, 9};
  Padded<mla_prefill_metadata> metadata;
  mla_context_chunk chunks[2];
  const mla_prefill_metadata* pointer = &metadata.value;
};

std::vector<Rule<Prepare>> prepare_rules() {
  std::vector<Rule<Prepare>> rules;
  add_struct_rules(rules, "metadata", [](Prepare& c) -> auto& { return c.metadata; },
                   [](Prepare& c) -> auto& { return c.pointer; });
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("backend", [](Prepare& c, Random&) { c.backend = nullptr; });
  add("num_requests", [](Prepare& c, Random& random) {
    c.metadata.value.num_requests = random.any_of<std::int32_t>({-1, INT32_MIN, random.negative()});
  });
  add("query_start_loc", [](Prepare& c, Random&) { c.metadata.value.query_start_loc = nullptr; });
  add("device_query_start_loc",
      [](Prepare& c, Random&) { c.metadata.value.device_query_start_loc = c.q_loc.data(); });
  add("query_start_loc", [](Prepare& c, Random& random) {
    c.q_loc[0] = random.any_of<std::int32_t>({1, -1, INT32_MIN, INT32_MAX});
  });
  add("query_start_loc", [](Prepare& c, Random& random) {
    c.q_loc[2] = random.any_of<std::int32_t>({2, -1, 10, INT32_MAX, INT32_MIN});
  });
  // No list of their tasks would fit into memory.
  add("num_requests", [](Prepare& c, Random&) {
    c.backend = many_heads();
    c.q_loc.assign(300, 0);
    c.metadata.value.num_requests = 299;
    c.metadata.value.query_start_loc = c.q_loc.data();
  });
  add("query_start_loc", [](Prepare& c, Random& random) {
    c.backend = many_heads();
    c.q_loc.back() = random.any_of({1 << 26, INT32_MAX});
  });
  add("chunks[0]", [](Prepare& c, Random& random) {
    c.backend = many_heads();
    c.chunk_q.back() = random.any_of({1 << 26, INT32_MAX});
  });
  add("num_chunks", [](Prepare& c, Random& random) {
    c.metadata.value.num_chunks = random.negative();
  });
  add("chunks", [](Prepare& c, Random&) { c.metadata.value.chunks = nullptr; });
  add("chunks[1]", [](Prepare& c, Random& random) {
    c.chunks[1].index = random.any_of<std::int32_t>({0, 2, -2, INT32_MAX, INT32_MIN});
  });
  add("chunks[0]",
      [](Prepare& c, Random& random) { c.chunks[0].struct_size = wrong_size(c.chunks[0], random); });
  add("chunks[1]",
      [](Prepare& c, Random& random) { c.chunks[1].num_requests = random.negative(); });
  add("chunks[1]", [](Prepare& c, Random&) { c.chunks[1].query_start_loc = nullptr; });
  add("chunks[1]", [](Prepare& c, Random&) { c.chunks[1].cu_seq_lens = nullptr; });
  add("chunks[0]", [](Prepare& c, Random& random) {
    c.chunk_kv[1] = random.any_of<std::int32_t>({-1, 10, INT32_MAX, INT32_MIN});
  });
  add("chunks[0]", [](Prepare& c, Random& random) {
    c.chunk_q[0] = random.any_of<std::int32_t>({-1, 1, INT32_MAX, INT32_MIN});
  });
  return rules;
}

struct Plan {
  Plan() : args(MLA_CONTEXT_PLAN_ARGS_INIT) {
    args.value.num_requests = 3;
    args.value.context_lens = context_lens.data();
    args.value.query_start_loc = q_loc.data();
    args.value.row_budget = 16;
    args.value.block_size = 4;
    args.value.max_context_chunk = 8;
  }

  mla_status invoke() {
    const mla_status status = mla_plan_context_chunks(pointer, place);
    if (status == MLA_OK) mla_context_plan_destroy(plan);
    return status;
  }
  bool untouched() const { return plan == canary<mla_context_plan>(); }

  test::Offsets q_loc{0, 3, 3, 9}, context_lens{30, 0, 5};
  Padded<mla_context_plan_args> args;
  const mla_context_plan_args* pointer = &args.value;
  mla_context_plan* plan = canary<mla_context_plan>();
  mla_context_plan** place = &plan;
};

std::vector<Rule<Plan>> plan_rules() {
  std::vector<Rule<Plan>> rules;
  add_struct_rules(rules, "args", [](Plan& c) -> auto& { return c.args; },
                   [](Plan& c) -> auto& { return c.pointer; });
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("plan", [](Plan& c, Random&) { c.place = nullptr; });
  add("num_requests",
      [](Plan& c, Random& random) { c.args.value.num_requests = random.negative(); });
  add("context_lens", [](Plan& c, Random&) { c.args.value.context_lens = nullptr; });
  add("context_lens", [](Plan& c, Random& random) {
    c.context_lens[static_cast<std::size_t>(random.between(0, 2))] = random.negative();
  });
  add("query_start_loc", [](Plan& c, Random& random) {
    c.q_loc[0] = random.any_of<std::int32_t>({1, -1, INT32_MAX});
  });
  add("query_start_loc", [](Plan& c, Random& random) {
    c.q_loc[2] = random.any_of<std::int32_t>({2, -1, 10, INT32_MIN});
  });
  // The budget lies below any block size that another rule might leave.
  add("row_budget", [](Plan& c, Random& random) {
    c.args.value.row_budget = random.any_of<std::int64_t>({0, -1, INT64_MIN});
  });
  add("block_size", [](Plan& c, Random& random) {
    c.args.value.block_size = random.any_of<std::int32_t>({0, random.negative()});
  });
  add("max_context_chunk",
      [](Plan& c, Random& random) { c.args.value.max_context_chunk = random.negative(); });
  return rules;
}

struct PlanGet {
  PlanGet() : chunk(MLA_CONTEXT_PLAN_CHUNK_INIT), before(chunk.value) {}

  mla_status invoke() { return mla_context_plan_get(plan, index, pointer); }
  bool untouched() const {
    mla_context_plan_chunk now = chunk.value;
    now.struct_size = before.struct_size;
    return std::memcmp(&now, &before, sizeof(now)) == 0;
  }

  static mla_context_plan* shared() {
    static mla::context_plan* const made = new mla::context_plan(Plan().args.value);
    return made->get();
  }

  mla_context_plan* plan = shared();
  std::int32_t index = 0;
  Padded<mla_context_plan_chunk> chunk;
  mla_context_plan_chunk before;
  mla_context_plan_chunk* pointer = &chunk.value;
};

std::vector<Rule<PlanGet>> plan_get_rules() {
  return {{"plan", invalid, [](PlanGet& c, Random&) { c.plan = nullptr; }},
          {"index", invalid,
           [](PlanGet& c, Random& random) {
             c.index = random.any_of<std::int32_t>({-1, 1000, INT32_MAX, random.negative()});
           }},
          {"chunk", invalid, [](PlanGet& c, Random&) { c.pointer = nullptr; }},
          {"struct_size", invalid, [](PlanGet& c, Random& random) {
             c.chunk.value.struct_size = wrong_size(c.chunk.value, random);
           }}};
}

}  // namespace

std::vector<Function> batch_functions() {
  return {function<Create>("mla_backend_create", create_rules()),
          function<Clone>("mla_backend_clone",
                          {{"backend", invalid, [](Clone& c, Random&) { c.backend = nullptr; }},
                           {"clone", invalid, [](Clone& c, Random&) { c.place = nullptr; }}}),
          function<Prepare>("mla_prepare_metadata", prepare_rules()),
          function<Plan>("mla_plan_context_chunks", plan_rules()),
          function<PlanGet>("mla_context_plan_get", plan_get_rules())};
}

}  // namespace malformed
