// A SAMPLED call means the GIVEN call with what the inspection calls report: lambda and permutation in row order, at
// every granularity, with blocks and offsets. Where both take the same way through the backend the results agree by the
// policy.
#include <algorithm>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"

namespace {

using namespace support;

Case sampled_case(int32_t pos, int32_t neg, uint64_t seed) {
  Case c = make_case(FNCE_PRESET_MOCO, 19, 117, 22);
  fnce_problem& p = c.problem;
  p.lambda_pos = pos;
  p.lambda_neg = neg;
  p.columns = neg == FNCE_LAMBDA_NONE ? FNCE_COLUMNS_QUEUE : FNCE_COLUMNS_MIXED;
  p.scores = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
  p.row_offset = static_cast<int64_t>(seed % 1000);
  c.numbers.seed = seed * 0x9E3779B97F4A7C15ull;
  c.numbers.offset = 4 * seed;
  Random random(seed);
  fill_inputs(c, random);
  return c;
}

Case given_lambda(const Case& c) {
  Case given = c;
  given.arrays.lambda_pos = lambda_pos_of(c);
  given.arrays.lambda_neg = lambda_neg_of(c);
  given.problem.lambda_pos_source = c.problem.lambda_pos == FNCE_LAMBDA_NONE ? FNCE_SAMPLED : FNCE_GIVEN;
  given.problem.lambda_neg_source = c.problem.lambda_neg == FNCE_LAMBDA_NONE ? FNCE_SAMPLED : FNCE_GIVEN;
  return given;
}

Case given_permutation(const Case& c) {
  Case given = c;
  given.arrays.permutation = permutation_of(c);
  given.problem.permutation_source = FNCE_GIVEN;
  given.problem.perm_block = 0;
  given.numbers.checks = FNCE_CHECK_PERMUTATION;
  return given;
}

// Both sides against one truth: the same draws, whatever the order of summation.
void check_same_meaning(const Case& a, const Case& b) {
  const Truth truth(oracle_inputs(a));
  REQUIRE(gradient_has_signal(truth));
  FNCE_CHECK_VERDICT(compare_all(a, truth, run_loss(a)));
  FNCE_CHECK_VERDICT(compare_all(b, truth, run_loss(b)));
}

}  // namespace

TEST_CASE("sampling: sampled lambda is the inspected lambda, bit for bit in the results") {
  for (int32_t pos = FNCE_LAMBDA_NONE; pos <= FNCE_LAMBDA_ELEMENT; ++pos) {
    for (int32_t neg = FNCE_LAMBDA_NONE; neg <= FNCE_LAMBDA_ELEMENT; ++neg) {
      const Case c = sampled_case(pos, neg, 50 + static_cast<uint64_t>(5 * pos + neg));
      INFO(describe(c));
      // Only the source of lambda differs, the permutation stays sampled: the same sums in the same order.
      CHECK(same_bits(run_loss(c), run_loss(given_lambda(c))));
    }
  }
}

TEST_CASE("sampling: the sampled permutation is the inspected permutation") {
  for (int32_t neg = FNCE_LAMBDA_CALL; neg <= FNCE_LAMBDA_ELEMENT; ++neg) {
    for (const int64_t block : {0, 16, 48}) {
      Case c = sampled_case(FNCE_LAMBDA_CALL, neg, 90 + static_cast<uint64_t>(neg));
      c.problem.perm_block = block;
      INFO(describe(c));
      check_same_meaning(c, given_permutation(c));
      check_same_meaning(c, given_permutation(given_lambda(c)));
    }
  }
}

TEST_CASE("sampling: every number of the draws matters, the others do not") {
  const Case c = sampled_case(FNCE_LAMBDA_ROW, FNCE_LAMBDA_ROW, 7);
  const auto pos = lambda_pos_of(c), neg = lambda_neg_of(c);
  const auto permutation = permutation_of(c);
  const auto changed = [&](auto change, bool pos_changes, bool neg_changes, bool permutation_changes) {
    Case other = c;
    change(other);
    CHECK((lambda_pos_of(other) != pos) == pos_changes);
    CHECK((lambda_neg_of(other) != neg) == neg_changes);
    CHECK((permutation_of(other) != permutation) == permutation_changes);
  };
  changed([](Case& o) { o.numbers.seed += 1; }, true, true, true);
  changed([](Case& o) { o.numbers.seed ^= uint64_t{1} << 63; }, true, true, true);
  changed([](Case& o) { o.numbers.offset += 4; }, true, true, true);
  changed([](Case& o) { o.numbers.offset += uint64_t{1} << 40; }, true, true, true);
  changed([](Case& o) { o.numbers.offset_increment = 8; }, true, true, true);
  changed([](Case& o) { o.problem.row_offset += 1; }, true, false, false);
  changed([](Case& o) { o.numbers.alpha_pos = 3; }, true, false, false);
  changed([](Case& o) { o.numbers.shift_pos = 0; }, true, false, false);
  changed([](Case& o) { o.numbers.alpha_neg = 3; }, false, true, false);
  changed([](Case& o) { o.numbers.shift_neg = 0.25f; }, false, true, false);
  changed([](Case& o) { o.problem.perm_block = 16; }, false, false, true);
  changed([](Case& o) { o.numbers.temperature = 1; }, false, false, false);
  changed([](Case& o) { o.numbers.epsilon = 1; }, false, false, false);
  changed([](Case& o) { o.problem.columns = FNCE_COLUMNS_UNION; }, false, false, false);
  changed([](Case& o) { o.problem.n = 19, o.problem.threads = 3; }, false, false, false);
}

TEST_CASE("sampling: offset and offset_increment add up, by value and by pointer") {
  Case a = sampled_case(FNCE_LAMBDA_ELEMENT, FNCE_LAMBDA_CALL, 8), b = a, pointers = a;
  a.numbers.offset = 400;
  b.numbers.offset = 392;
  b.numbers.offset_increment = 8;
  pointers = b;
  pointers.numbers_by_pointer = true;
  const Outputs expected = run_loss(a);
  CHECK(same_bits(expected, run_loss(b)));
  CHECK(same_bits(expected, run_loss(pointers)));
}

TEST_CASE("sampling: numbers behind pointers give the bits of numbers by value") {
  for (int32_t granularity = FNCE_LAMBDA_CALL; granularity <= FNCE_LAMBDA_ELEMENT; ++granularity) {
    Case c = sampled_case(granularity, granularity, 9);
    Case pointers = c;
    pointers.numbers_by_pointer = true;
    CHECK(same_bits(run_loss(c), run_loss(pointers)));
  }
}

TEST_CASE("sampling: the identity as permutation, or lambda 1, leaves the queue as it is") {
  Case c = sampled_case(FNCE_LAMBDA_NONE, FNCE_LAMBDA_ROW, 11);
  Case plain = c;
  plain.problem.lambda_neg = FNCE_LAMBDA_NONE;
  plain.problem.columns = FNCE_COLUMNS_QUEUE;
  const Truth truth(oracle_inputs(plain));
  Case ones = c;
  ones.problem.lambda_neg_source = FNCE_GIVEN;
  ones.arrays.lambda_neg.assign(117, 1.0f);
  FNCE_CHECK_VERDICT(compare_all(plain, truth, run_loss(ones)));
  Case identity = c;
  identity.problem.permutation_source = FNCE_GIVEN;
  identity.arrays.permutation.resize(117);
  for (int32_t j = 0; j < 117; ++j) identity.arrays.permutation[static_cast<size_t>(j)] = j;
  FNCE_CHECK_VERDICT(compare_all(plain, truth, run_loss(identity)));
}
