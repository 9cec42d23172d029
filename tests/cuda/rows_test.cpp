// prep and pack: anchors, their packed form, the positives of the ranks and thresholds, against the oracle and against
// the definitions in kernels/contract/params.h.
#include "cuda/rows_support.h"
#include "math/stats.h"

namespace {

using namespace common_test;

struct Packed {
  Packed(Operand operand, int64_t rows, int32_t d_padded)
      : values(static_cast<size_t>(planes_of(operand) * rows * d_padded), 0xABAB),
        scale(static_cast<size_t>(rows), kNan),
        pointers{operand == Operand::kFloat32 ? nullptr : values.data(), scale.data(), rows, d_padded} {}
  std::vector<uint16_t> values;
  std::vector<float> scale;
  PackedAnchors pointers;
};

struct Prepared {
  Prepared(const Setup& s, Operand operand)
      : anchors(s.p),
        exact_pos(static_cast<size_t>(s.p.n), kNan),
        packed(operand, (s.p.n + 31) / 32 * 32, static_cast<int32_t>((s.p.d + 63) / 64 * 64)),
        thresholds(4, std::vector<float>(static_cast<size_t>(s.p.n), kNan)) {}
  Thresholds threshold_pointers() {
    return {{thresholds[0].data(), thresholds[1].data()}, {thresholds[2].data(), thresholds[3].data()}};
  }
  Anchors anchors;
  std::vector<float> exact_pos;
  Packed packed;
  std::vector<std::vector<float>> thresholds;
};

Prepared run_prep(Setup& s, Operand operand) {
  Prepared out(s, operand);
  uint32_t ticket = 7;
  PrepParams params = {};
  params.rows = s.rows(operand);
  params.anchor = out.anchors.anchor.data();
  params.pos = out.anchors.pos.data();
  params.unmixed_pos = out.anchors.unmixed_pos.data();
  params.exact_pos = out.exact_pos.data();
  params.packed = out.packed.pointers;
  params.thresholds = out.threshold_pointers();
  params.ticket = &ticket;
  launch(prep_kernel(s.p.d), {static_cast<unsigned>(s.p.n)}, params, nullptr);
  CHECK(ticket == 0);
  return out;
}

Prepared run_pack(const Setup& s, Operand operand, Prepared& from) {
  Prepared out(s, operand);
  PackParams params = {};
  params.anchor = from.anchors.anchor.data();
  params.pos = from.anchors.pos.data();
  params.unmixed_pos = from.anchors.unmixed_pos.data();
  params.n = s.p.n;
  params.d = s.p.d;
  params.operand = operand;
  params.packed = out.packed.pointers;
  params.thresholds = out.threshold_pointers();
  launch(pack_kernel(s.p.d), {static_cast<unsigned>(s.p.n)}, params, nullptr);
  return out;
}

constexpr int32_t kGranularities[] = {FNCE_LAMBDA_NONE, FNCE_LAMBDA_CALL, FNCE_LAMBDA_ROW, FNCE_LAMBDA_DIMENSION,
                                      FNCE_LAMBDA_ELEMENT};

// The packed planes stand for the exported anchors, the padding is zero, and pack makes the same of them.
void check_packed(const Setup& s, Operand operand, Prepared& prepared) {
  const Packed& packed = prepared.packed;
  const PackedAnchors& shape = packed.pointers;
  const bool scales_queue = operand == Operand::kHalfSplit || operand == Operand::kHalfFast;
  const auto value = [&](int64_t row, int64_t c) {
    double sum = 0;
    for (int plane = 0; plane < planes_of(operand); ++plane) {
      const auto at = static_cast<size_t>((plane * shape.rows + row) * shape.d_padded + c);
      sum += static_cast<double>(operand == Operand::kBfloat ? bfloat_to_float(packed.values[at])
                                                             : half_to_float(packed.values[at]));
    }
    return sum * static_cast<double>(packed.scale[static_cast<size_t>(row)]) * (scales_queue ? 16384.0 : 1.0);
  };
  for (int64_t row = 0; row < shape.rows; ++row) {
    double largest = 0;
    for (int64_t c = 0; c < shape.d_padded; ++c) {
      const bool inside = row < s.p.n && c < s.p.d;
      if (!inside) {
        const auto at = static_cast<size_t>(row * shape.d_padded + c);
        if (packed.values[at] != 0 || value(row, c) * 0.0 != 0.0) FAIL("padding at row " << row << ", feature " << c);
        continue;
      }
      const double a = static_cast<double>(prepared.anchors.anchor[static_cast<size_t>(row * s.p.d + c)]);
      const double error = std::abs(value(row, c) - a);
      largest = std::max(largest, std::abs(a));
      // The second half has 11 bits and the first one 11: 22 of the row's largest value, and ties.
      if (error > (operand == Operand::kHalfSplit ? largest * 0x1p-21 : 0.0)) FAIL("row " << row << ", feature " << c);
    }
    if (row >= s.p.n || operand == Operand::kBfloat || largest == 0) continue;
    const double scaled =
        largest / static_cast<double>(packed.scale[static_cast<size_t>(row)]) / (scales_queue ? 16384.0 : 1.0);
    CHECK(scaled >= 8192.0 * (1 - 0x1p-11));
    CHECK(scaled < 16384.0);
  }
  const Prepared again = run_pack(s, operand, prepared);
  CHECK(same_bits(again.packed.values, packed.values));
  CHECK(same_bits(again.packed.scale, packed.scale));
  for (size_t i = 0; i < 4; ++i) CHECK(same_bits(again.thresholds[i], prepared.thresholds[i]));
}

// Rounding moves no element by more than `unit` of its row's largest.
void check_rounded(const std::vector<float>& rounded, const std::vector<float>& exact, int64_t d, double unit) {
  for (size_t row = 0; row < exact.size(); row += static_cast<size_t>(d)) {
    double largest = 0, moved = 0;
    for (size_t i = row; i < row + static_cast<size_t>(d); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(exact[i])));
      moved = std::max(moved, std::abs(static_cast<double>(rounded[i]) - static_cast<double>(exact[i])));
    }
    CHECK(std::isfinite(largest));
    CHECK(moved <= unit * largest);
  }
}

void check_thresholds(const Setup& s, const Prepared& prepared) {
  for (int64_t i = 0; i < s.p.n; ++i) {
    double squares = 0;
    for (int64_t c = 0; c < s.p.d; ++c)
      squares += std::pow(static_cast<double>(prepared.anchors.anchor[static_cast<size_t>(i * s.p.d + c)]), 2);
    for (size_t set = 0; set < 2; ++set) {
      const auto row = static_cast<size_t>(i);
      const float pos = set == 0 ? prepared.anchors.pos[row] : prepared.anchors.unmixed_pos[row];
      const double tie = tie_tolerance(std::sqrt(squares), static_cast<double>(pos));
      const double slack = 0x1p-23 * (std::abs(static_cast<double>(pos)) + tie);
      CHECK(std::abs(static_cast<double>(prepared.thresholds[set][row] - pos) - tie) <= slack);
      CHECK(std::abs(static_cast<double>(pos - prepared.thresholds[2 + set][row]) - tie) <= slack);
    }
  }
}

}  // namespace

TEST_CASE("common prep: anchors and positives are right") {
  for (const int64_t d : {1, 7, 128, 1024, 1100})
    for (const int32_t granularity : kGranularities)
      for (const int32_t source : {FNCE_SAMPLED, FNCE_GIVEN}) {
        Setup s(5, 16, d, static_cast<uint64_t>(d) + 1);
        s.set_mixing(granularity, source);
        s.p.scores = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
        s.p.feature_type = 1 + granularity % 3;
        s.p.normalize = granularity != FNCE_LAMBDA_ROW;
        s.p.renormalize_pos = granularity >= FNCE_LAMBDA_ROW;
        s.p.anchor = source == FNCE_GIVEN ? FNCE_ANCHOR_QUERY : FNCE_ANCHOR_MIXED;
        s.p.row_offset = 1000;
        s.inputs();
        const Prepared gpu = run_prep(s, Operand::kFloat32);
        const support::Truth truth = truth_of(s);
        INFO("D " << d << ", granularity " << granularity << ", source " << source);
        support::Verdict verdict = support::compare_anchors(truth, gpu.anchors.anchor);
        verdict.merge(support::compare_positives(truth, support::ScoreSet::kMixed, gpu.anchors.pos));
        verdict.merge(support::compare_positives(truth, support::ScoreSet::kMixed, gpu.exact_pos));
        verdict.merge(support::compare_positives(truth, support::ScoreSet::kUnmixed, gpu.anchors.unmixed_pos));
        FNCE_CHECK_VERDICT(verdict);
        check_thresholds(s, gpu);
        if (source == FNCE_GIVEN || granularity == FNCE_LAMBDA_NONE) continue;
        // The draws are those of the contract, to the bit.
        Setup given = s;
        given.lambda_pos = s.lambdas(true);
        given.inputs();
        CHECK(same_bits(run_prep(given, Operand::kFloat32).anchors.anchor, gpu.anchors.anchor));
      }
}

TEST_CASE("common prep: rounded anchors, and what pack makes of them") {
  for (const Operand operand : {Operand::kHalf, Operand::kBfloat, Operand::kHalfSplit, Operand::kHalfFast})
    for (const int64_t d : {1, 3, 64, 130, 1030})
      for (const float scale : {1.0f, 1e-22f, 3e35f}) {
        Setup s(37, 0, d, 3);
        const bool float32_queue = operand == Operand::kHalfSplit || operand == Operand::kHalfFast;
        s.p.queue_type = float32_queue ? FNCE_FLOAT32 : operand == Operand::kHalf ? FNCE_FLOAT16 : FNCE_BFLOAT16;
        s.p.normalize = scale == 1.0f;
        for (float& x : s.x_q) x *= scale;
        for (float& x : s.x_k) x /= scale;
        // A row whose maximum rounds up to the next power of two, a row of zeros, one with tiny elements.
        for (int64_t c = 0; c < d; ++c) {
          s.x_q[static_cast<size_t>(c)] = scale * (c == 0 ? 0x1.fffffep0f : 0x1.234568p-14f / static_cast<float>(c));
          s.x_q[static_cast<size_t>(d + c)] = 0.0f;
          s.x_q[static_cast<size_t>(2 * d + c)] *= c % 2 ? 1e-4f : 1.0f;
        }
        s.inputs();
        INFO("operand " << static_cast<int>(operand) << ", D " << d << ", scale " << scale);
        Prepared exact = run_prep(s, Operand::kFloat32);
        Prepared rounded = run_prep(s, operand);
        const double unit = operand == Operand::kBfloat ? 0x1p-8 : operand == Operand::kHalfSplit ? 0.0 : 0x1p-11;
        check_rounded(rounded.anchors.anchor, exact.anchors.anchor, d, unit);
        check_packed(s, operand, rounded);
        if (scale == 1.0f) check_thresholds(s, rounded);
        CHECK(same_bits(rounded.exact_pos, exact.exact_pos));
      }
}

TEST_CASE("common prep: a key's copy in the queue ties with it, in every operand") {
  for (const Operand operand :
       {Operand::kFloat32, Operand::kHalf, Operand::kBfloat, Operand::kHalfSplit, Operand::kHalfFast}) {
    const int64_t n = 40, d = 96;
    Setup s(n, 0, d, 11);
    const bool float32_queue = operand != Operand::kHalf && operand != Operand::kBfloat;
    s.p.queue_type = float32_queue ? FNCE_FLOAT32 : operand == Operand::kHalf ? FNCE_FLOAT16 : FNCE_BFLOAT16;
    s.inputs();
    const Prepared out = run_prep(s, operand);
    Setup keys = s;
    keys.x_q = s.x_k;
    keys.inputs();
    const Prepared stored = run_prep(keys, Operand::kFloat32);  // k, float32
    for (int64_t i = 0; i < n; ++i) {
      double score = 0;
      for (int64_t c = 0; c < d; ++c) {
        const auto at = static_cast<size_t>(i * d + c);
        const float k = stored.anchors.anchor[at];
        double z = static_cast<double>(k);
        if (operand == Operand::kHalf) z = static_cast<double>(half_to_float(float_to_half(k)));
        if (operand == Operand::kBfloat) z = static_cast<double>(bfloat_to_float(float_to_bfloat(k)));
        if (operand == Operand::kHalfFast)
          z = static_cast<double>(half_to_float(float_to_half(k * 16384.0f))) / 16384.0;
        score += static_cast<double>(out.anchors.anchor[at]) * z;
      }
      const auto row = static_cast<size_t>(i);
      CHECK(score <= static_cast<double>(out.thresholds[0][row]));
      CHECK(score >= static_cast<double>(out.thresholds[2][row]));
    }
  }
}

TEST_CASE("common prep: what is not finite stays so, in its row alone") {
  for (const Operand operand :
       {Operand::kFloat32, Operand::kHalf, Operand::kBfloat, Operand::kHalfSplit, Operand::kHalfFast})
    for (const float poison : {kNan, HUGE_VALF, -HUGE_VALF})
      for (const int32_t normalize : {0, 1}) {
        const int64_t d = 70;
        Setup s(4, 0, d, 5);
        s.p.normalize = normalize;
        s.x_q[static_cast<size_t>(2 * d + 69)] = poison;
        s.inputs();
        const Prepared out = run_prep(s, operand);
        for (int64_t row = 0; row < 4; ++row) {
          bool finite = true, packed_finite = true;
          for (int64_t c = 0; c < d; ++c) {
            finite = finite && std::isfinite(out.anchors.anchor[static_cast<size_t>(row * d + c)]);
            const uint16_t bits = out.packed.values.empty() ? 0 : out.packed.values[static_cast<size_t>(row * 128 + c)];
            const bool is_half = operand != Operand::kBfloat && operand != Operand::kFloat32;
            if (operand == Operand::kBfloat) packed_finite = packed_finite && std::isfinite(bfloat_to_float(bits));
            if (is_half) packed_finite = packed_finite && std::isfinite(half_to_float(bits));
          }
          CHECK(finite == (row != 2));
          if (operand != Operand::kFloat32) CHECK(packed_finite == (row != 2));
          CHECK(static_cast<bool>(std::isfinite(out.anchors.pos[static_cast<size_t>(row)])) == (row != 2));
        }
      }
}

TEST_CASE("common prep: wrong numbers behind pointers give NaN, right ones what values give") {
  const uint64_t seed = 77, right_offset = 12, wrong_offset = 6;
  const float numbers[] = {1.5f, 0.5f, 0.0f, -1.0f, kNan, HUGE_VALF};
  for (const int32_t granularity : {FNCE_LAMBDA_CALL, FNCE_LAMBDA_ELEMENT}) {
    const auto anchors = [&](const float* alpha, const float* shift, const uint64_t* offset) {
      Setup s(3, 0, 20, 9);
      s.set_mixing(granularity, FNCE_SAMPLED);
      s.a.seed_pointer = &seed;
      s.a.offset_pointer = offset;
      s.a.alpha_pos_pointer = alpha;
      s.a.shift_pos_pointer = shift;
      s.inputs();
      return run_prep(s, Operand::kFloat32).anchors.anchor;
    };
    const std::vector<float> right = anchors(&numbers[0], &numbers[1], &right_offset);
    Setup values(3, 0, 20, 9);
    values.set_mixing(granularity, FNCE_SAMPLED);
    values.a.seed = seed;
    values.a.offset = right_offset;
    values.a.alpha_pos = 1.5f;
    values.a.shift_pos = 0.5f;
    values.inputs();
    CHECK(same_bits(run_prep(values, Operand::kFloat32).anchors.anchor, right));
    for (const auto& wrong :
         {anchors(&numbers[2], &numbers[1], &right_offset), anchors(&numbers[3], &numbers[1], &right_offset),
          anchors(&numbers[4], &numbers[1], &right_offset), anchors(&numbers[5], &numbers[1], &right_offset),
          anchors(&numbers[0], &numbers[4], &right_offset), anchors(&numbers[0], &numbers[5], &right_offset),
          anchors(&numbers[0], &numbers[1], &wrong_offset)})
      for (const float a : wrong) CHECK(std::isnan(a));
  }
}
