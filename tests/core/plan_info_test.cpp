// The words for a plan: written from fnce_plan_info alone, for each backend and reason.
#include "core/plan_info.h"

#include <cstring>
#include <string>

#include "core/status.h"
#include "support/catch.h"

namespace {

using namespace fnce;

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

fnce_plan_info cpu_info() {
  fnce_plan_info info = {};
  info.device = FNCE_CPU;
  info.family = FNCE_FAMILY_CPU;
  info.n = 2000, info.k = 500, info.d = 30;
  info.row_blocks = 2, info.block_rows = 1000;
  info.column_tiles = 6, info.tile_columns = 96, info.splits = 2, info.tasks = 4;
  info.cpu_isa = FNCE_CPU_ISA_AVX2, info.lanes = 8, info.threads = 1;
  info.products = FNCE_PRODUCTS_FLOAT32;
  info.feature_type = FNCE_FLOAT32, info.queue_type = FNCE_FLOAT16, info.gradient_type = FNCE_BFLOAT16;
  info.workspace_bytes = 4096;
  return info;
}

fnce_plan_info gpu_info() {
  fnce_plan_info info = cpu_info();
  info.device = FNCE_CUDA, info.device_index = 3;
  info.family = FNCE_FAMILY_PLAIN;
  info.cpu_isa = FNCE_CPU_ISA_NONE, info.lanes = 0, info.threads = 0;
  info.row_blocks = 125, info.block_rows = 16, info.tasks = 250;
  info.compute_capability = 120, info.multiprocessors = info.planned_multiprocessors = 84;
  info.shared_memory_bytes = 50000;
  std::strcpy(info.device_name, "some GPU");
  return info;
}

}  // namespace

TEST_CASE("plan info: the words of a CPU's plan") {
  fnce_plan_info info = cpu_info();
  CHECK(describe(info) ==
        "cpu backend, avx2 (8 queries per vector, the best of this processor), up to 1 thread; "
        "2000 queries x 500 negatives x 30 features; features in float32, queue in float16, gradients in bfloat16, "
        "float32 products; negatives as they are, in the order of the queue; "
        "2 row blocks of up to 1000 queries x 2 chunks of up to 288 negatives = 4 tasks, tiles of 96 negatives; "
        "workspace 4096 bytes");
  info.family_reason = FNCE_REASON_FORCED;
  info.threads = 2;
  CHECK(holds(describe(info), "8 queries per vector, FNCE_CPU_ISA says so), up to 2 threads;"));
  info.splits = info.tasks = info.column_tiles = info.k = 0;
  CHECK(holds(describe(info), " x 0 chunks of up to 0 negatives = 0 tasks, "));
}

TEST_CASE("plan info: the words of a GPU's plan, with the reason for its family") {
  fnce_plan_info info = gpu_info();
  info.better_family = FNCE_FAMILY_SM80;
  info.family_reason = FNCE_REASON_FEATURES;
  info.family_limit = 17;
  CHECK(describe(info) ==
        "cuda backend, plain family (the sm80 family goes up to 17 features) on device 3 "
        "(some GPU, compute capability 12.0, 84 SMs); "
        "2000 queries x 500 negatives x 30 features; features in float32, queue in float16, gradients in bfloat16, "
        "float32 products; negatives as they are, in the order of the queue; "
        "125 row blocks of 16 queries x 2 splits = 250 blocks, tiles of 96 negatives; workspace 4096 bytes");
  info.family_reason = FNCE_REASON_MASKS;
  info.family_limit = 0;
  CHECK(holds(describe(info), "plain family (the sm80 family has no ids, biases and margins) on device 3"));
  info.family_reason = FNCE_REASON_COMPUTE_CAPABILITY;
  info.family_limit = 80;
  CHECK(holds(describe(info), "plain family (the sm80 family needs compute capability 8.0) on"));
  info.family_reason = FNCE_REASON_SHARED_MEMORY;
  info.family_limit = 60000;
  CHECK(holds(describe(info),
              "plain family (a block of this device has 50000 bytes of shared memory, the tiles of the "
              "sm80 family need 60000) on"));
  info.family_reason = FNCE_REASON_FORCED;
  CHECK(holds(describe(info), "plain family (FNCE_BACKEND says so) on"));
  info.family = FNCE_FAMILY_SM80;
  info.fallback_family = FNCE_FAMILY_PLAIN;
  info.family_reason = FNCE_REASON_NONE;
  info.products = FNCE_PRODUCTS_FLOAT16X3;
  info.planned_multiprocessors = 1;
  const std::string words = describe(info);
  CHECK(holds(words, "cuda backend, sm80 family (the best for this device) on"));
  CHECK(holds(words, ", float16x3 products (a float32 queue, split in two), by the plain family where float16 cannot"));
  CHECK(holds(words, ", as for 1 SM (FNCE_MULTIPROCESSORS says so)"));
}

TEST_CASE("plan info: products and mixing have words of their own, and other codes none") {
  fnce_plan_info info = cpu_info();
  info.products = FNCE_PRODUCTS_FLOAT16_FAST;
  info.mixing = FNCE_MIXING_SCORES;
  info.columns = FNCE_COLUMNS_UNION;
  CHECK(holds(describe(info), ", float16-fast products"));
  CHECK(holds(describe(info), "negatives mixed as scores"));
  CHECK(holds(describe(info), "raw negatives beside them"));
  info.mixing = FNCE_MIXING_WHILE_PACKED;
  info.mixing_reason = FNCE_REASON_PERMUTATION_GIVEN;
  CHECK(holds(describe(info), "negatives mixed while packed (a given permutation has partners anywhere)"));
  info.mixing = FNCE_MIXING_BEFORE_PASS;
  info.mixing_reason = FNCE_REASON_RENORMALIZED;
  CHECK(holds(describe(info), "negatives mixed once, before the pass (renormalised rows"));
  info.mixing_reason = FNCE_REASON_LAMBDA_GRANULARITY;
  CHECK(holds(describe(info), "before the pass (lambda per dimension or element"));
  info.products = 4;
  CHECK_THROWS_AS(describe(info), StatusError);
}

TEST_CASE("plan info: a plan's description is the words of its info") {
  for (const int32_t preset : {FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}) {
    fnce_problem p;
    REQUIRE(fnce_problem_init(&p, sizeof p, preset) == FNCE_OK);
    p.n = 33, p.k = 4097, p.d = 129;
    fnce_plan* plan = nullptr;
    REQUIRE(fnce_plan_create(&p, &plan) == FNCE_OK);
    fnce_plan_info info;
    REQUIRE(fnce_plan_get_info(plan, &info, sizeof info) == FNCE_OK);
    CHECK(describe(info) == fnce_plan_describe(plan));
    fnce_plan_destroy(plan);
  }
}
