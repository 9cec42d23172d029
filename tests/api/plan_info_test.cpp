// fnce_plan_get_info: every field against the problem, reasons as codes, and structs of other sizes.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"

namespace {

using namespace support;

fnce_plan_info info_of(const Case& c) { return Plan(c.problem).info(); }

bool on_cpu() { return device().kind() == FNCE_CPU; }

// So many parts of `size` hold `total`, and none of them is empty.
bool covers(int64_t total, int64_t parts, int64_t size) {
  return parts * size >= total && (parts == 0 || (parts - 1) * size < total);
}

const char* name_of_isa(int32_t isa) {
  switch (isa) {
    case FNCE_CPU_ISA_BASELINE: return "baseline";
    case FNCE_CPU_ISA_AVX2: return "avx2";
    case FNCE_CPU_ISA_AVX512: return "avx512";
    case FNCE_CPU_ISA_AVX512_BF16: return "avx512_bf16";
    case FNCE_CPU_ISA_AMX: return "amx";
    case FNCE_CPU_ISA_NEON: return "neon";
    default: return "none";
  }
}

struct Mixing {
  const char* name;
  int32_t lambda_neg, permutation_source, renormalize_neg;
  bool as_scores;
  int32_t reason;
};

constexpr Mixing kMixings[] = {
    {"none", FNCE_LAMBDA_NONE, FNCE_SAMPLED, 0, false, FNCE_REASON_NONE},
    {"call", FNCE_LAMBDA_CALL, FNCE_SAMPLED, 0, true, FNCE_REASON_NONE},
    {"row", FNCE_LAMBDA_ROW, FNCE_SAMPLED, 0, true, FNCE_REASON_NONE},
    {"dimension", FNCE_LAMBDA_DIMENSION, FNCE_SAMPLED, 0, false, FNCE_REASON_LAMBDA_GRANULARITY},
    {"element", FNCE_LAMBDA_ELEMENT, FNCE_SAMPLED, 0, false, FNCE_REASON_LAMBDA_GRANULARITY},
    {"given permutation", FNCE_LAMBDA_ROW, FNCE_GIVEN, 0, false, FNCE_REASON_PERMUTATION_GIVEN},
    {"renormalised", FNCE_LAMBDA_CALL, FNCE_SAMPLED, 1, false, FNCE_REASON_RENORMALIZED},
    {"all at once", FNCE_LAMBDA_ELEMENT, FNCE_GIVEN, 1, false, FNCE_REASON_RENORMALIZED}};

}  // namespace

TEST_CASE("plan info: sizes and types are the problem's, and cuts cover them") {
  for (const int64_t n : {1, 33, 1030})
    for (const int64_t k : {0, 1, 97, 4097})
      for (const int64_t d : {1, 129}) {
        Case c = make_case(FNCE_PRESET_MOCO, n, k, d);
        set_types(c, FNCE_FLOAT16, FNCE_BFLOAT16, FNCE_FLOAT32);
        c.problem.threads = d == 1 ? 1 : 3;
        const Plan plan(c.problem);
        const fnce_plan_info info = plan.info();
        INFO(describe(c) << ": " << fnce_plan_describe(plan.get()));
        CHECK(info.struct_size == sizeof info);
        CHECK(info.workspace_bytes == plan.workspace_bytes());
        CHECK((info.n == n && info.k == k && info.d == d));
        CHECK((info.device == device().kind() && info.device_index == 0 && info.columns == FNCE_COLUMNS_QUEUE));
        CHECK((info.feature_type == FNCE_FLOAT16 && info.queue_type == FNCE_BFLOAT16 &&
               info.gradient_type == FNCE_FLOAT32));
        CHECK(covers(n, info.row_blocks, info.block_rows));
        CHECK(covers(k, info.column_tiles, info.tile_columns));
        CHECK(info.tile_features >= d);
        const int64_t cuts = info.row_blocks * info.splits;
        CHECK((cuts == 0 ? info.tasks == 0 : info.tasks % cuts == 0 && info.tasks >= cuts));
        if (!on_cpu() || c.problem.threads == 1) CHECK(info.tasks == cuts);
        CHECK((info.splits <= info.column_tiles || (info.splits == 1 && !on_cpu())));
        CHECK(info.splits >= (on_cpu() && k == 0 ? 0 : 1));
        CHECK(info.reserved == 0);
      }
}

TEST_CASE("plan info: what the device has, and zeros for what it has not") {
  Case c = make_case(FNCE_PRESET_FT, 64, 1000, 64);
  c.problem.threads = 5;
  const fnce_plan_info info = info_of(c);
  if (on_cpu()) {
    CHECK(info.family == FNCE_FAMILY_CPU);
    CHECK((info.lanes >= 4 && info.lanes <= 16 && info.block_rows % info.lanes == 0));
    CHECK(info.threads == 5);
    CHECK((info.compute_capability == 0 && info.multiprocessors == 0 && info.planned_multiprocessors == 0 &&
           info.shared_memory_bytes == 0 && std::strlen(info.device_name) == 0 && info.fallback_family == 0));
    CHECK((info.better_family == 0 && info.family_limit == 0));
    c.problem.threads = 0;
    CHECK(info_of(c).threads == fnce_get_threads());
    // The instruction set is what fnce_build_info names, by choice or by force.
    const std::string isa = name_of_isa(info.cpu_isa), build = fnce_build_info();
    INFO(build);
    CHECK(build.find("cpu (" + isa + " of ") != std::string::npos);
    const char* forced = std::getenv("FNCE_CPU_ISA");
    CHECK(info.family_reason == (forced ? FNCE_REASON_FORCED : FNCE_REASON_NONE));
    if (forced) CHECK(isa == forced);
    return;
  }
  CHECK((info.family == FNCE_FAMILY_SM80 || info.family == FNCE_FAMILY_PLAIN));
  CHECK((info.cpu_isa == FNCE_CPU_ISA_NONE && info.lanes == 0 && info.threads == 0));
  CHECK((info.compute_capability >= 75 && info.multiprocessors >= 1 && info.planned_multiprocessors >= 1 &&
         info.shared_memory_bytes >= 48 << 10 && std::strlen(info.device_name) > 0));
  CHECK((info.fallback_family == FNCE_FAMILY_PLAIN) == (info.family == FNCE_FAMILY_SM80));
}

TEST_CASE("plan info: products follow the queue, not features and gradients") {
  for (const int32_t feature : {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16})
    for (const int32_t gradient : {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16})
      for (const int32_t queue : {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16}) {
        Case c = make_case(FNCE_PRESET_MOCO, 8, 64, 16);
        set_types(c, feature, queue, gradient);
        const fnce_plan_info info = info_of(c);
        int32_t expected = FNCE_PRODUCTS_FLOAT32;
        if (on_cpu()) {
          if (queue == FNCE_BFLOAT16 && (info.cpu_isa == FNCE_CPU_ISA_AVX512_BF16 || info.cpu_isa == FNCE_CPU_ISA_AMX))
            expected = FNCE_PRODUCTS_BFLOAT16;
        } else if (info.family == FNCE_FAMILY_SM80) {
          expected = queue == FNCE_FLOAT16    ? FNCE_PRODUCTS_FLOAT16
                     : queue == FNCE_BFLOAT16 ? FNCE_PRODUCTS_BFLOAT16
                                              : FNCE_PRODUCTS_FLOAT16X3;
        }
        CAPTURE(feature, queue, gradient, fnce_build_info());
        CHECK((info.feature_type == feature && info.queue_type == queue && info.gradient_type == gradient));
        CHECK(info.products == expected);
      }
}

TEST_CASE("plan info: how negatives are mixed, and why not as scores") {
  const int32_t rows = on_cpu() ? FNCE_MIXING_WHILE_PACKED : FNCE_MIXING_BEFORE_PASS;
  for (const Mixing& m : kMixings) {
    Case c = make_case(FNCE_PRESET_MOCO, 8, 64, 16);
    c.problem.lambda_neg = m.lambda_neg;
    c.problem.permutation_source = m.permutation_source;
    c.problem.renormalize_neg = m.renormalize_neg;
    const bool mixes = m.lambda_neg != FNCE_LAMBDA_NONE;
    for (const int32_t columns : {FNCE_COLUMNS_MIXED, FNCE_COLUMNS_UNION}) {
      c.problem.columns = mixes ? columns : FNCE_COLUMNS_QUEUE;
      const fnce_plan_info info = info_of(c);
      CAPTURE(m.name, info.columns);
      CHECK(info.columns == c.problem.columns);
      CHECK(info.mixing == (!mixes ? FNCE_MIXING_NONE : m.as_scores ? FNCE_MIXING_SCORES : rows));
      CHECK(info.mixing_reason == m.reason);
    }
  }
}

TEST_CASE("plan info: a struct of another size, and what is wrong") {
  const Case c = make_case(FNCE_PRESET_FT, 8, 64, 16);
  const Plan plan(c.problem);
  constexpr size_t kSize = sizeof(fnce_plan_info), kMore = 24;
  const fnce_plan_info expected = plan.info();
  alignas(fnce_plan_info) unsigned char bytes[kSize + 2 * kMore];
  const auto* info = reinterpret_cast<fnce_plan_info*>(bytes);
  const auto ask = [&](const fnce_plan* of, bool into, size_t size) {
    std::memset(bytes, 0xA5, sizeof bytes);
    return fnce_plan_get_info(of, into ? reinterpret_cast<fnce_plan_info*>(bytes) : nullptr, size);
  };
  const auto all_are = [&](size_t first, size_t last, unsigned char value) {
    for (size_t i = first; i < last; ++i)
      if (bytes[i] != value) return false;
    return true;
  };
  // This version's, and a newer one's: its other fields are 0. Nothing is written behind either.
  for (const size_t size : {kSize, kSize + kMore}) {
    CHECK(ask(plan.get(), true, size) == FNCE_OK);
    CHECK(info->struct_size == size);
    CHECK(std::memcmp(bytes + sizeof(uint64_t), reinterpret_cast<const unsigned char*>(&expected) + sizeof(uint64_t),
                      kSize - sizeof(uint64_t)) == 0);
    CHECK((all_are(kSize, size, 0) && all_are(size, sizeof bytes, 0xA5)));
  }
  // No version is shorter than the first one, and none will be so long.
  for (const size_t size : {size_t{0}, size_t{8}, size_t{255}, size_t{1} << 20}) {
    CHECK(ask(plan.get(), true, size) == FNCE_INVALID_ARGUMENT);
    CHECK(std::string(fnce_last_error()).find("size is " + std::to_string(size) + "; allowed: 256") == 0);
    CHECK(all_are(0, sizeof bytes, 0xA5));
  }
  CHECK(ask(nullptr, true, kSize) == FNCE_INVALID_ARGUMENT);
  CHECK(std::string(fnce_last_error()).find("plan is NULL") == 0);
  CHECK(all_are(0, sizeof bytes, 0xA5));
  CHECK(ask(plan.get(), false, kSize) == FNCE_INVALID_ARGUMENT);
  CHECK(std::string(fnce_last_error()).find("info is NULL") == 0);
}
