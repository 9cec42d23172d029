// Random inputs and cases.
#include "support/random_case.h"

#include <flashnce/flashnce.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <sstream>

namespace support {
namespace {

std::vector<int32_t> random_permutation(Random& random, int64_t k) {
  std::vector<int32_t> permutation(static_cast<size_t>(k));
  std::iota(permutation.begin(), permutation.end(), 0);
  for (int64_t i = k - 1; i > 0; --i) std::swap(permutation[i], permutation[random.below(i + 1)]);
  return permutation;
}

// Given lambdas: mostly mixtures, with exact 0 and 1, extrapolations and negative ones among them.
std::vector<float> given_lambda(Random& random, int64_t count, double low, double high) {
  std::vector<float> lambda(static_cast<size_t>(count));
  for (float& value : lambda) {
    value = static_cast<float>(random.uniform(low, high));
    if (random.chance(0.05)) value = random.chance(0.5) ? 0.0f : 1.0f;
  }
  return lambda;
}

void make_spiky(Random& random, std::vector<float>& rows, int64_t d) {
  for (float& value : rows) value = value * value * value;
  for (size_t first = 0; first < rows.size(); first += static_cast<size_t>(d)) {
    const double length = std::pow(10.0, random.uniform(-2, 2));
    for (int64_t c = 0; c < d; ++c) rows[first + c] = static_cast<float>(rows[first + c] * length);
  }
}

void make_tied(Random& random, std::vector<float>& rows, int64_t d) {
  const int64_t count = static_cast<int64_t>(rows.size()) / d;
  for (int64_t j = 3; j < count; ++j) std::copy_n(rows.begin() + random.below(3) * d, d, rows.begin() + j * d);
}

void make_zeros(Random& random, std::vector<float>& rows, int64_t d) {
  for (size_t first = 0; first < rows.size(); first += static_cast<size_t>(d))
    if (random.chance(0.2)) std::fill_n(rows.begin() + static_cast<int64_t>(first), d, 0.0f);
}

void apply_style(Random& random, std::vector<float>& rows, int64_t d, Style style) {
  if (style == Style::kSpiky) make_spiky(random, rows, d);
  if (style == Style::kTied) make_tied(random, rows, d);
  if (style == Style::kZeros) make_zeros(random, rows, d);
}

// Few different ids, so that some are equal; a share of none.
std::vector<int64_t> random_ids(Random& random, int64_t count, int64_t different, double none) {
  std::vector<int64_t> ids(static_cast<size_t>(count));
  for (int64_t& id : ids) id = random.chance(none) ? FNCE_NO_COLUMN : random.below(different) - different / 2;
  return ids;
}

std::vector<float> random_bias(Random& random, int64_t count) {
  std::vector<float> bias(static_cast<size_t>(count));
  for (float& b : bias) b = random.chance(0.1) ? -INFINITY : static_cast<float>(random.uniform(-4, 4));
  return bias;
}

void choose_shape(Random& random, fnce_problem& p) {
  static const std::vector<int64_t> all_n{1, 2, 7, 16, 33, 48, 49, 130};
  static const std::vector<int64_t> all_k{0, 1, 2, 15, 16, 17, 31, 100, 257, 1000, 4096};
  static const std::vector<int64_t> all_d{1, 3, 8, 13, 64, 100, 128, 300, 1024};
  do {
    p.n = random.pick(all_n);
    p.k = random.pick(all_k);
    p.d = random.pick(all_d);
  } while (p.n * p.k * p.d > device().max_products());
}

// Half of the cases in float32, the others in any types.
void choose_types(Random& random, Case& c) {
  if (random.chance(0.5)) return;
  const std::vector<int32_t> types(std::begin(kTypes), std::end(kTypes));
  const int32_t feature = random.pick(types), queue = random.pick(types), gradient = random.pick(types);
  set_types(c, feature, queue, gradient);
}

// The permutation, its blocks, and the shard: which of them go together is fixed by the header.
void choose_columns(Random& random, fnce_problem& p) {
  const bool mixes = p.lambda_neg != FNCE_LAMBDA_NONE;
  p.columns = mixes ? random.pick<int32_t>({FNCE_COLUMNS_MIXED, FNCE_COLUMNS_UNION})
                    : random.pick<int32_t>({FNCE_COLUMNS_QUEUE, FNCE_COLUMNS_MIXED});
  p.renormalize_neg = mixes && random.chance(0.3);
  p.lambda_neg_source = mixes && random.chance(0.4) ? FNCE_GIVEN : FNCE_SAMPLED;
  p.permutation_source = mixes && random.chance(0.3) ? FNCE_GIVEN : FNCE_SAMPLED;
  if (p.permutation_source == FNCE_GIVEN) return;
  if (random.chance(0.4)) p.perm_block = 16 * (1 + random.below(5));
  if (!random.chance(0.3)) return;
  const int64_t block = p.perm_block > 0 ? p.perm_block : 16;
  p.perm_block = block;
  p.column_offset = block * random.below(20);
  // The last shard may end in a block that is not full; any other is a union of whole blocks.
  if (p.k % block == 0 && random.chance(0.7))
    p.k_global = p.column_offset + p.k + block * random.below(5) + 5;
  else
    p.k_global = p.column_offset + p.k;
}

void choose_options(Random& random, Case& c) {
  fnce_problem& p = c.problem;
  p.normalize = random.chance(0.75);
  p.lambda_pos = static_cast<int32_t>(random.below(5));
  p.lambda_neg = static_cast<int32_t>(random.below(5));
  const bool mixes = p.lambda_pos != FNCE_LAMBDA_NONE;
  p.lambda_pos_source = mixes && random.chance(0.4) ? FNCE_GIVEN : FNCE_SAMPLED;
  p.renormalize_pos = mixes && random.chance(0.3);
  choose_columns(random, p);
  p.anchor = static_cast<int32_t>(random.below(2));
  p.reduction = static_cast<int32_t>(random.below(3));
  p.precision = static_cast<int32_t>(random.below(2));
  p.scores = static_cast<int32_t>(random.below(4));
  p.threads = static_cast<int32_t>(random.below(4));
  p.row_offset = random.chance(0.5) ? 0 : random.below(1000000);
  if (random.chance(0.3)) {
    // Loss only, gradient only, or any subset.
    c.want.loss = random.chance(0.6);
    c.want.dq = random.chance(0.4);
    c.want.dk = random.chance(0.4);
    c.want.dtemperature_rows = random.chance(0.3);
    c.want.dtemperature = random.chance(0.3);
  }
  c.numbers_by_pointer = random.chance(0.25);
  c.skew = random.chance(0.5) ? 4 * static_cast<size_t>(random.below(16)) : 0;
  c.numbers.temperature = random.pick<float>({0.05f, 0.07f, 0.2f, 1.0f, 10.0f});
  c.numbers.alpha_pos = random.pick<float>({0.3f, 1.0f, 2.0f, 20.0f});
  c.numbers.alpha_neg = random.pick<float>({0.3f, 1.0f, 1.6f, 20.0f});
  c.numbers.shift_pos = random.pick<float>({0.0f, 1.0f, 0.5f});
  c.numbers.shift_neg = random.pick<float>({0.0f, 0.0f, 1.0f});
  c.numbers.seed = static_cast<uint64_t>(random.below(INT64_MAX));
  c.numbers.offset = 4 * static_cast<uint64_t>(random.below(1000));
  c.numbers.offset_increment = random.chance(0.3) ? 4 * static_cast<uint64_t>(random.below(1000)) : 0;
}

}  // namespace

double Random::normal() {
  const double radius = std::sqrt(-2 * std::log(1 - uniform(0, 1)));
  return radius * std::cos(6.283185307179586 * uniform(0, 1));
}

std::vector<float> gaussian_rows(Random& random, int64_t rows, int64_t d) {
  std::vector<float> out(static_cast<size_t>(rows * d));
  for (float& value : out) value = static_cast<float>(random.normal());
  return out;
}

void normalize_rows(std::vector<float>& rows, int64_t d) {
  for (size_t first = 0; first < rows.size(); first += static_cast<size_t>(d)) {
    double squares = 0;
    for (int64_t c = 0; c < d; ++c) squares += double(rows[first + c]) * double(rows[first + c]);
    if (squares == 0) continue;
    for (int64_t c = 0; c < d; ++c) rows[first + c] = static_cast<float>(double(rows[first + c]) / std::sqrt(squares));
  }
}

void fill_inputs(Case& c, Random& random, Style style) {
  const fnce_problem& p = c.problem;
  Arrays& a = c.arrays;
  a.x_q = gaussian_rows(random, p.n, p.d);
  apply_style(random, a.x_q, p.d, style);
  a.x_k = gaussian_rows(random, p.n, p.d);
  apply_style(random, a.x_k, p.d, style);
  const double closeness = random.uniform(0, 2);
  for (size_t i = 0; i < a.x_q.size(); ++i) a.x_k[i] = static_cast<float>(a.x_k[i] + closeness * double(a.x_q[i]));
  a.queue = gaussian_rows(random, p.k, p.d);
  apply_style(random, a.queue, p.d, style);
  normalize_rows(a.queue, p.d);
  if (!p.normalize) {
    normalize_rows(a.x_q, p.d);
    normalize_rows(a.x_k, p.d);
    // Dot products: rows of the queue are then no unit rows either.
    for (size_t i = 0; i < a.queue.size(); ++i)
      a.queue[i] = static_cast<float>(a.queue[i] * (0.5 + double(i / static_cast<size_t>(p.d) % 3) * 0.5));
  }
  if (p.lambda_pos_source == FNCE_GIVEN)
    a.lambda_pos = given_lambda(random, flashnce::lambda_count(p.lambda_pos, p.n, p.d), -0.3, 2);
  if (p.lambda_neg_source == FNCE_GIVEN)
    a.lambda_neg = given_lambda(random, flashnce::lambda_count(p.lambda_neg, p.k, p.d), -0.1, 1.2);
  if (p.permutation_source == FNCE_GIVEN) a.permutation = random_permutation(random, p.k);
  a.x_q = oracle::rounded(element_of(p.feature_type), a.x_q);
  a.x_k = oracle::rounded(element_of(p.feature_type), a.x_k);
  a.queue = oracle::rounded(element_of(p.queue_type), a.queue);
}

void fill_columns(Case& c, Random& random) {
  const fnce_problem& p = c.problem;
  Arrays& a = c.arrays;
  a.x_c = gaussian_rows(random, p.batch_columns, p.d);
  // The other side of a batch: the first columns belong to a query each.
  const size_t shared = std::min(a.x_c.size(), a.x_k.size());
  for (size_t i = 0; i < shared; ++i) a.x_c[i] = static_cast<float>(0.5 * double(a.x_c[i]) + double(a.x_k[i]));
  if (!p.normalize) normalize_rows(a.x_c, p.d);
  a.x_c = oracle::rounded(element_of(p.feature_type), a.x_c);
  if (p.id_mask) {
    const int64_t different = random.pick<int64_t>({1, 3, 20, 1000});
    a.query_ids = random_ids(random, p.n, different, 0.1);
    a.column_ids = random_ids(random, p.k, different, 0.2);
    a.batch_ids = random_ids(random, p.batch_columns, different, 0.1);
  }
  if (p.column_bias) {
    a.column_bias = random_bias(random, p.k);
    a.batch_bias = random_bias(random, p.batch_columns);
  }
  a.upstream.assign(random.chance(0.5) ? 1 : static_cast<size_t>(p.n), 1.0f);
  for (float& u : a.upstream) u = random.chance(0.1) ? 0.0f : static_cast<float>(random.uniform(-2, 3));
}

void add_columns(Case& c, uint64_t seed) {
  Random random(seed);
  fnce_problem& p = c.problem;
  static const std::vector<int64_t> all_c{0, 1, 2, 15, 16, 17, 48, 95, 96, 97, 200};
  do {
    p.batch_columns = random.pick(all_c);
  } while (p.n * p.batch_columns * p.d > device().max_products());
  p.id_mask = random.chance(0.6);
  p.column_bias = random.chance(0.4);
  p.margin_mask = random.chance(0.3);
  p.form = random.chance(0.3) ? FNCE_FORM_DECOUPLED : FNCE_FORM_INFO_NCE;
  fill_columns(c, random);
  c.want.log_sum_exp = random.chance(0.8);
  c.want.dx_c = random.chance(0.8);
  c.label += describe_columns(c);
}

std::string describe_columns(const Case& c) {
  const fnce_problem& p = c.problem;
  std::ostringstream text;
  text << " batch=" << p.batch_columns << " ids=" << p.id_mask << " bias=" << p.column_bias
       << " margin=" << p.margin_mask << "/" << c.numbers.margin << " form=" << p.form
       << " upstream=" << c.arrays.upstream.size() << " want=" << c.want.log_sum_exp << c.want.dx_c;
  return text.str();
}

std::string describe(const Case& c) {
  const fnce_problem& p = c.problem;
  std::ostringstream text;
  text << "n=" << p.n << " k=" << p.k << " d=" << p.d << " k_global=" << p.k_global << " row_offset=" << p.row_offset
       << " column_offset=" << p.column_offset << " perm_block=" << p.perm_block << " normalize=" << p.normalize
       << " lambda_pos=" << p.lambda_pos << "/" << p.lambda_pos_source << "/renorm" << p.renormalize_pos
       << " lambda_neg=" << p.lambda_neg << "/" << p.lambda_neg_source << "/renorm" << p.renormalize_neg
       << " permutation=" << p.permutation_source << " columns=" << p.columns << " anchor=" << p.anchor
       << " reduction=" << p.reduction << " scores=" << p.scores << " threads=" << p.threads
       << " temperature=" << c.numbers.temperature << " alpha=" << c.numbers.alpha_pos << "," << c.numbers.alpha_neg
       << " shift=" << c.numbers.shift_pos << "," << c.numbers.shift_neg << " weight=" << !c.arrays.weight.empty()
       << " types=" << type_name(p.feature_type) << "," << type_name(p.queue_type) << "," << type_name(p.gradient_type)
       << " pointers=" << c.numbers_by_pointer << " skew=" << c.skew << " want=" << c.want.loss << c.want.dq
       << c.want.dk << c.want.dtemperature_rows << c.want.dtemperature;
  return text.str();
}

Case random_case(uint64_t seed) {
  Random random(seed);
  Case c = make_case(FNCE_PRESET_MOCO, 1, 0, 1);
  choose_shape(random, c.problem);
  choose_options(random, c);
  choose_types(random, c);
  static const std::vector<Style> styles{Style::kPlain, Style::kPlain, Style::kSpiky, Style::kTied, Style::kZeros};
  const auto style = random.pick(styles);
  fill_inputs(c, random, style);
  if (random.chance(0.3)) {
    c.arrays.weight.resize(static_cast<size_t>(c.problem.n));
    for (float& weight : c.arrays.weight)
      weight = random.chance(0.2) ? 0.0f : static_cast<float>(random.uniform(-0.5, 3));
  }
  c.label = "seed " + std::to_string(seed) + ", style " + std::to_string(static_cast<int>(style)) + ": " + describe(c);
  return c;
}

}  // namespace support
