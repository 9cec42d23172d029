// The codes of products, and the range of a float32 queue.
#include "support/products.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "oracle/forward.h"
#include "support/order.h"

namespace support {
namespace {

using oracle::Products;

// Where a float32 queue's largest magnitude lies outside, float16 would lose digits or overflow, and the GPU multiplies
// in float32 instead. Zeros alone are fine.
constexpr double kLeast = 0.015625, kMost = 3.9;

double largest(const std::vector<double>& values) {
  double out = 0;
  for (const double x : values) out = std::isnan(x) ? INFINITY : std::max(out, std::abs(x));
  return out;
}

bool fits(double size) { return size == 0 || (size >= kLeast && size <= kMost); }

bool mixes_scores(const fnce_problem& p) {
  const bool per_score = p.lambda_neg == FNCE_LAMBDA_CALL || p.lambda_neg == FNCE_LAMBDA_ROW;
  return per_score && p.permutation_source == FNCE_SAMPLED && !p.renormalize_neg;
}

// The largest value of the rows that the loss multiplies: mixed ones, and raw ones unless the mixed ones are all there
// is.
double largest_of_loss(const fnce_problem& p, const oracle::Inputs& in) {
  const double raw = largest(in.queue);
  if (!in.mixes_negatives() || mixes_scores(p)) return raw;
  const double mixed = largest(oracle::unrounded_columns(in));
  return p.scores & FNCE_SCORES_UNMIXED ? std::max(mixed, raw) : mixed;
}

}  // namespace

Products products_of(int32_t code) {
  switch (code) {
    case FNCE_PRODUCTS_FLOAT32: return Products::kFloat32;
    case FNCE_PRODUCTS_FLOAT16: return Products::kFloat16;
    case FNCE_PRODUCTS_BFLOAT16: return Products::kBfloat16;
    case FNCE_PRODUCTS_FLOAT16X3: return Products::kFloat16Split;
    case FNCE_PRODUCTS_FLOAT16_FAST: return Products::kFloat16Fast;
    default: throw std::runtime_error("a plan has products that the oracle does not know: " + std::to_string(code));
  }
}

Products products_of(const Case& c) { return products_of(Plan(c.problem).info().products); }

void choose_products(const Case& c, oracle::Inputs& in) {
  const fnce_problem& p = c.problem;
  in.products = Products::kFloat32;
  const Products products = products_of(c);
  if (products == Products::kFloat32) return;
  in.products = products;
  // Where scores are mixed, the CPU makes the rows beyond the last whole cycle; the GPU mixes all scores.
  if (!mixes_scores(p))
    in.mixed_as_row.assign(static_cast<size_t>(p.k), true);
  else if (p.device == FNCE_CPU)
    in.mixed_as_row = rows_beyond_cycles(c);
  else
    in.mixed_as_row.assign(static_cast<size_t>(p.k), false);
  const bool negatives_fit = fits(largest_of_loss(p, in));
  if (products == Products::kFloat16Split && !negatives_fit) in.products = Products::kFloat32;
  if (products != Products::kFloat16Fast) return;
  in.negatives_fit = negatives_fit;
  in.queue_fits = fits(largest(in.queue));
}

}  // namespace support
