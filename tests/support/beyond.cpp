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
  Random random(seed);
  fill_inputs(c, random);
  fill_columns(c, random);
  if (c.problem.margin_mask == 0 || choose_margin(c)) return;
  // Rounding reaches across every gap of this seed's scores: take those of another one.
  c.problem.margin_mask = 1;
  fill_beyond(c, seed + (uint64_t{1} << 32));
}

}  // namespace support
