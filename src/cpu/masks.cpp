#include "cpu/masks.h"

#include <algorithm>

namespace fnce::cpu {
namespace {

constexpr float kInfinity = __builtin_huge_valf();

// What one row of a source says as a column by itself.
struct Named {
  int32_t number;
  bool out;
};

Named name_of(const CpuCall& call, const ColumnSource& source, int32_t row) {
  if (!source.ids) return {kNoNumber, false};
  const int64_t id = source.ids[row];
  return {number_of(call, id, kNoNumber), source.unnamed_is_out && id == FNCE_NO_COLUMN};
}

}  // namespace

void number_rows(const CpuCall& call, const int64_t* ids) {
  const Workspace& w = call.workspace;
  int64_t* end =
      std::copy_if(ids, ids + call.problem.n(), w.sorted_ids, [](int64_t id) { return id != FNCE_NO_COLUMN; });
  std::sort(w.sorted_ids, end);
  *w.sorted_count = std::unique(w.sorted_ids, end) - w.sorted_ids;
}

int32_t number_of(const CpuCall& call, int64_t id, int32_t none) {
  const int64_t *first = call.workspace.sorted_ids, *last = first + *call.workspace.sorted_count;
  if (first == last || id < *first || id > last[-1]) return none;
  const int64_t* found = std::lower_bound(first, last, id);
  return *found == id ? static_cast<int32_t>(found - first) : none;
}

bool make_mask(const CpuCall& call, const ColumnSource& source, const PackedColumns& columns,
               const ThreadScratch& scratch, TileMask& mask) {
  if (!source.ids && !source.bias && !source.limits && !call.problem.has_margin()) return false;
  const float temperature = call.args.raw().temperature;
  int32_t lowest = INT32_MAX, highest = kNoNumber;
  bool only_numbers = !source.limits && !call.problem.has_margin();
  const auto note = [&](int32_t number) {
    if (number == kNoNumber) return;
    lowest = std::min(lowest, number);
    highest = std::max(highest, number);
  };
  for (int j = 0; j < columns.padded; ++j) {
    const int32_t row = columns.rows[j];
    const Named own = name_of(call, source, row);
    const float bias = source.bias ? source.bias[row] * temperature : 0.0f;
    note(own.number);
    scratch.numbers[j] = own.number;
    scratch.bias[j] = own.out ? -kInfinity : bias;
    if (source.limits) scratch.limits[j] = source.limits[row];
    if (columns.mixes_scores || columns.partners) {
      const int next = (j & ~3) | ((j + 1) & 3);
      const Named partner = name_of(call, source, columns.partners ? columns.partners[j] : columns.rows[next]);
      note(partner.number);
      scratch.partner_numbers[j] = partner.number;
      (columns.partners ? scratch.bias : scratch.mixed_bias)[j] = own.out || partner.out ? -kInfinity : bias;
    }
    only_numbers = only_numbers && scratch.bias[j] == 0.0f && (!columns.mixes_scores || scratch.mixed_bias[j] == 0.0f);
  }
  if (only_numbers && highest == kNoNumber) return false;
  const float* limits = source.limits ? scratch.limits : nullptr;
  mask.raw = {scratch.numbers, columns.partners ? scratch.partner_numbers : nullptr, scratch.bias, limits};
  mask.mixed = {scratch.numbers, scratch.partner_numbers, scratch.mixed_bias, limits};
  mask.first_number = lowest;
  mask.last_number = highest;
  mask.by_number_alone = only_numbers;
  return true;
}

void mark_not_finite(const TileJob& job, const ColumnMask* mask, int column, int32_t bits) {
  if (mask && mask->bias[column] == -kInfinity) return;
  for (int64_t i = 0; i < int64_t{job.panels.vectors()} * job.lanes; ++i) {
    const bool same = mask && (job.row_numbers[i] == mask->numbers[column] ||
                               (mask->partner_numbers && job.row_numbers[i] == mask->partner_numbers[column]));
    if (!same) job.not_finite[i] |= bits;
  }
}

}  // namespace fnce::cpu
