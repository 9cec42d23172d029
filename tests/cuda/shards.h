// Partials of shards by the CPU backend, and the same as the splits of one launch: what merge and finish start from.
#pragma once
#include "core/columns.h"
#include "cuda/rows_support.h"
#include "math/lse.h"

namespace common_test {

// The partials of `shards` equal parts of the queue by the CPU, without mixing of the negatives.
struct Shards {
  Shards(const Setup& s, int shards) : problem(s.p) {
    Anchors anchors = cpu_prep(s);
    const fnce_anchors pointers = anchors.pointers();
    for (int shard = 0; shard < shards; ++shard) {
      fnce_problem part = s.p;
      fnce_args a = s.a;
      const int64_t begin = s.p.k * shard / shards;
      part.k = s.p.k * (shard + 1) / shards - begin;
      part.column_offset = begin;
      a.queue = part.k > 0 ? s.queue_bytes.data() + begin * s.p.d * (s.p.queue_type == FNCE_FLOAT32 ? 4 : 2) : nullptr;
      CpuPlan plan(part);
      partials.emplace_back(plan.layout.bytes);
      FNCE_REQUIRE_OK(fnce_partial(plan.plan, &a, &pointers, partials.back().get(), plan.layout.bytes,
                                   plan.workspace.get(), plan.workspace.bytes, nullptr));
    }
    CpuPlan sum(s.p);
    merged = Aligned(sum.layout.bytes);
    std::vector<const void*> addresses;
    for (Aligned& partial : partials) addresses.push_back(partial.get());
    FNCE_REQUIRE_OK(fnce_merge(sum.plan, addresses.data(), shards, merged.get(), merged.bytes, nullptr));
  }
  PartialView view(Aligned& partial) const {
    return PartialView(partial.get(), partial_layout(problem.n, problem.d, problem.scores));
  }
  const fnce_problem problem;
  std::vector<Aligned> partials;
  Aligned merged = Aligned(0);
};

// Shards as the splits of one launch: arrays of [splits][N] in one block, in base 2 where asked for.
struct SplitArrays {
  SplitArrays(Shards& shards, bool base2) : memory(bytes_for(shards)) {
    const fnce_problem& p = shards.problem;
    const auto count = static_cast<int64_t>(shards.partials.size());
    const PartialView out(memory.get(), partial_layout(count * p.n, p.d, p.scores));
    for (int64_t split = 0; split < count; ++split) {
      const PartialView from = shards.view(shards.partials[static_cast<size_t>(split)]);
      const auto copy = [&](auto* to, const auto* source, int64_t width) {
        for (int64_t i = 0; to && i < p.n * width; ++i) to[split * p.n * width + i] = source[i];
      };
      copy(out.m, from.m, 1);
      copy(out.l, from.l, 1);
      copy(out.o, from.o, p.d);
      for (int set = 0; set < 2; ++set)
        for_each_array<int64_t>([&](auto array) { copy(out.stats[set].*array, from.stats[set].*array, 1); });
    }
    for (int64_t i = 0; base2 && i < count * p.n; ++i) {
      to_base2(out.m[i], out.l[i], out.o + i * p.d, p.d);
      if (out.stats[1].m) to_base2(out.stats[1].m[i], out.stats[1].l[i], nullptr, 0);
    }
  }
  static size_t bytes_for(const Shards& shards) {
    const fnce_problem& p = shards.problem;
    return partial_layout(static_cast<int64_t>(shards.partials.size()) * p.n, p.d, p.scores).bytes;
  }
  static void to_base2(float& m, float& l, float* o, int64_t d) {
    if (m == kMinusInfinity) {
      m = kNoColumn;
      return;
    }
    const double exact = static_cast<double>(m) * kLog2e;
    m = static_cast<float>(exact);
    const auto factor = static_cast<float>(std::exp2(exact - static_cast<double>(m)));
    l *= factor;
    for (int64_t c = 0; c < d; ++c) o[c] *= factor;
  }
  SplitPartials partials(const Shards& shards, bool base2) {
    const fnce_problem& p = shards.problem;
    const auto count = static_cast<int64_t>(shards.partials.size());
    return {PartialView(memory.get(), partial_layout(count * p.n, p.d, p.scores)),
            p.n,
            p.d,
            static_cast<int32_t>(count),
            base2,
            1};
  }
  Aligned memory;
};

inline SplitPartials one_split(Shards& shards) {
  return {shards.view(shards.merged), shards.problem.n, shards.problem.d, 1, 0, 1};
}

// A problem whose negatives are not mixed, so that any part of the queue is a shard.
inline Setup make_setup(int64_t n, int64_t k, int64_t d, int32_t granularity, int32_t source, uint64_t seed) {
  Setup s(n, k, d, seed);
  s.set_mixing(granularity, source);
  s.p.lambda_neg = FNCE_LAMBDA_NONE;
  s.p.lambda_neg_source = FNCE_SAMPLED;
  s.p.columns = FNCE_COLUMNS_QUEUE;
  s.lambda_neg.clear();
  s.p.scores = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
  s.p.reduction = FNCE_REDUCTION_NONE;
  return s;
}

}  // namespace common_test
