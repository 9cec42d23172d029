#include "cpu/masks.h"

#include <algorithm>

#include "math/lse.h"

namespace fnce::cpu {
namespace {

constexpr float kInfinity = __builtin_huge_valf(), kNan = __builtin_nanf("");

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

// A bias that is no number and no -infinity spoils its column.
bool spoils(float bias) { return bias != -kInfinity && !is_finite(bias); }

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
  const bool mixes = columns.mixes_scores || columns.partners;
  int32_t lowest = INT32_MAX, highest = kNoNumber;
  bool only_numbers = !source.limits && !call.problem.has_margin() && !columns.blank, any_spoiled = columns.blank;
  const auto note = [&](int32_t number) {
    if (number == kNoNumber) return;
    lowest = std::min(lowest, number);
    highest = std::max(highest, number);
  };
  for (int j = 0; j < columns.padded; ++j) {
    const int32_t row = columns.rows[j];
    const Named own = name_of(call, source, row);
    const float given = source.bias ? source.bias[row] * temperature : 0.0f;
    const bool spoiled = spoils(given);
    const float bias = spoiled ? 0.0f : given;
    const uint8_t blank = columns.blank ? columns.blank[j] : 0;
    const uint8_t next_blank = columns.blank && columns.mixes_scores ? columns.blank[next_in_quad(j)] : 0;
    note(own.number);
    scratch.numbers[j] = own.number;
    scratch.bias[j] = own.out ? -kInfinity : bias;
    scratch.spoiled[j] = spoiled || (blank & kBlankRow) ? kNan : 0.0f;
    scratch.mixed_spoiled[j] = spoiled || blank || (next_blank & kBlankRow) ? kNan : 0.0f;
    any_spoiled = any_spoiled || spoiled;
    if (source.limits) scratch.limits[j] = source.limits[row];
    if (mixes) {
      const int32_t other = columns.partners ? columns.partners[j] : columns.rows[next_in_quad(j)];
      const Named partner = name_of(call, source, other);
      note(partner.number);
      scratch.partner_numbers[j] = partner.number;
      (columns.partners ? scratch.bias : scratch.mixed_bias)[j] = own.out || partner.out ? -kInfinity : bias;
    }
    only_numbers =
        only_numbers && !spoiled && scratch.bias[j] == 0.0f && (!columns.mixes_scores || scratch.mixed_bias[j] == 0.0f);
  }
  if (only_numbers && highest == kNoNumber) return false;
  const float* limits = source.limits ? scratch.limits : nullptr;
  mask.raw = {scratch.numbers, columns.partners ? scratch.partner_numbers : nullptr, scratch.bias, limits,
              any_spoiled ? scratch.spoiled : nullptr};
  mask.mixed = {scratch.numbers, scratch.partner_numbers, scratch.mixed_bias, limits,
                any_spoiled ? scratch.mixed_spoiled : nullptr};
  mask.first_number = lowest;
  mask.last_number = highest;
  mask.by_number_alone = only_numbers;
  return true;
}

}  // namespace fnce::cpu
