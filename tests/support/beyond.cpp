// Building them.
#include "support/beyond.h"

#include <stdexcept>

#include "support/margin.h"
#include "support/random_case.h"

namespace support {

Case beyond_case(const Shape& shape, uint64_t seed, const Beyond& options, int32_t preset) {
  Case c = make_case(preset, shape.n, shape.k, shape.d);
  c.problem.batch_columns = shape.c;
  c.problem.id_mask = options.ids;
  c.problem.column_bias = options.bias;
  c.problem.margin_mask = options.margin;
  c.problem.form = options.decoupled ? FNCE_FORM_DECOUPLED : FNCE_FORM_INFO_NCE;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  c.numbers.temperature = 0.2f;
  c.numbers.seed = seed;
  c.want.log_sum_exp = true;
  c.want.dx_c = shape.c > 0;
  fill_beyond(c, seed);
  return c;
}

void fill_beyond(Case& c, uint64_t seed) {
  const bool margin = c.problem.margin_mask != 0;
  // Rounding may reach across every gap of a seed's scores: then those of another one are taken.
  for (uint64_t attempt = 0; attempt < 8; ++attempt) {
    Random random(seed + (attempt << 32));
    fill_inputs(c, random);
    fill_columns(c, random);
    c.problem.margin_mask = margin;
    if (!margin || choose_margin(c)) return;
  }
  throw std::runtime_error("no margin: seed " + std::to_string(seed));
}

}  // namespace support
