// Runs a case and holds its results against float64.
#include "hostcuda/planted/main_pass.h"

#include <cmath>
#include <sstream>

#include "hostcuda/launch.h"
#include "hostcuda/planted/problem.h"

namespace main_pass {
namespace {

constexpr float kNan = __builtin_nanf("");

// What the kernel writes, [splits][n]. Everything starts as NaN, or as a number that no count is.
struct StatisticsOut {
  std::vector<int64_t> count, n_greater, n_greater_equal;
  std::vector<float> mean, m2, min, max, m, l;
  void start(size_t rows) {
    for (auto* out : {&count, &n_greater, &n_greater_equal}) out->assign(rows, -1);
    for (auto* out : {&mean, &m2, &min, &max, &m, &l}) out->assign(rows, kNan);
  }
  fnce::StatsView view() {
    return {count.data(),           mean.data(), m2.data(), min.data(), max.data(), n_greater.data(),
            n_greater_equal.data(), m.data(),    l.data()};
  }
};

struct Out {
  explicit Out(const Inputs& in) {
    const auto rows = static_cast<size_t>(in.c.splits * in.c.n);
    for (auto* out : {&m, &l}) out->assign(rows, kNan);
    o.assign(rows * static_cast<size_t>(in.c.d), kNan);
    for (auto& set : statistics) set.start(rows);
  }
  std::vector<float> m, l, o, extent;
  StatisticsOut statistics[2];
};

bool gathers(const Case& c, int set) {
  return c.variant == sm80::Variant::kStatistics && (set == 0 ? c.mixed_statistics : c.unmixed_statistics);
}

MainParams params_of(Inputs& in, Out& out, Grid grid) {
  const Case& c = in.c;
  MainParams p = {.out = {fnce::PartialView(nullptr, {}), c.n, c.d, c.splits, 1, c.sums}};
  p.packed = {in.packed.data(), in.packed_scale.data(), static_cast<int64_t>(in.packed_scale.size()), in.tile.d};
  p.n = c.n;
  p.d = c.d;
  const int32_t type = converts(c.operand)             ? FNCE_FLOAT32
                       : c.operand == Operand::kBfloat ? FNCE_BFLOAT16
                                                       : FNCE_FLOAT16;
  for (const Rows& rows : in.segments)
    p.segments[p.segment_count++] = {rows.bytes.get(), type, rows.stride, rows.count, 1, 1};
  if (c.columns == Columns::kPremixed) {
    p.segments[0].unmixed = 0;
    p.segments[1].in_loss = c.is_union;
  }
  if (!gathers(c, 1)) p.segments[0].unmixed = p.segments[1].unmixed = 0;
  for (int s = 0; s < kMostSegments; ++s) {
    p.first_tile[s] = p.tiles;
    p.tiles += static_cast<int32_t>((p.segments[s].count + in.tile.columns - 1) / in.tile.columns);
  }
  p.splits = c.splits;
  p.mix = c.columns == Columns::kScores;
  p.mixed_tiles = p.mix ? p.first_tile[1] : 0;
  p.lambda_per_row = c.lambda_per_row;
  p.is_union = p.mix && c.is_union;
  p.sums = c.sums;
  if (p.mix) p.tables = {in.order.data(), in.lambda.data(), in.extent.data(), static_cast<int32_t>(in.extent.size())};
  p.temperature = {c.temperature, nullptr};
  p.wide = in.wide;
  if (converts(c.operand)) {
    p.queue_extent_count = static_cast<int32_t>(grid.x * grid.y);
    out.extent.assign(static_cast<size_t>(p.queue_extent_count), kNan);
    p.queue_extent = out.extent.data();
  }
  p.out.view.m = out.m.data();
  p.out.view.l = out.l.data();
  p.out.view.o = c.sums ? out.o.data() : nullptr;
  for (int set = 0; set < 2; ++set) {
    p.statistics[set] = gathers(c, set);
    if (!p.statistics[set]) continue;
    p.out.view.stats[set] = out.statistics[set].view();
    p.thresholds.upper[set] = in.upper[set].data();
    p.thresholds.lower[set] = in.lower[set].data();
  }
  return p;
}

// Collects what is wrong with one row.
class Complaints {
 public:
  void compare(const std::string& what, int64_t row, double got, double expected, double error) {
    if (std::fabs(got - expected) <= error || got == expected) return;
    if (!text_.str().empty()) return;
    text_.precision(9);
    text_ << what << " of row " << row << " is " << got << ", not " << expected << " +- " << error;
  }
  void require(bool holds, const std::string& what, int64_t row) {
    if (!holds && text_.str().empty()) text_ << what << " of row " << row;
  }
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
};

// Log-sum-exp of partial ones in base 2, natural.
double merged_log_sum(const Case& c, const std::vector<float>& m, const std::vector<float>& l, int64_t row,
                      double& top) {
  top = -INFINITY;
  double sum = 0;
  for (int64_t s = 0; s < c.splits; ++s)
    top = std::fmax(top, static_cast<double>(m[static_cast<size_t>(s * c.n + row)]));
  for (int64_t s = 0; s < c.splits; ++s) {
    const auto at = static_cast<size_t>(s * c.n + row);
    sum += static_cast<double>(l[at]) * std::exp2(static_cast<double>(m[at]) - top);
  }
  return (top + std::log2(sum)) * std::log(2.0);
}

std::vector<double> merged_mean(const Case& c, const Out& out, int64_t row, double top) {
  std::vector<double> mean(static_cast<size_t>(c.d));
  double sum = 0;
  for (int64_t s = 0; s < c.splits; ++s) {
    const auto at = static_cast<size_t>(s * c.n + row);
    const double factor = std::exp2(static_cast<double>(out.m[at]) - top);
    sum += static_cast<double>(out.l[at]) * factor;
    for (size_t f = 0; f < mean.size(); ++f)
      mean[f] += static_cast<double>(out.o[at * static_cast<size_t>(c.d) + f]) * factor;
  }
  for (double& x : mean) x /= sum;
  return mean;
}

void check_statistics(const Case& c, const Out& all, int set, int64_t row, const ExpectedStatistics& expected,
                      Complaints& out) {
  const StatisticsOut& got = all.statistics[set];
  int64_t count = 0, n_greater = 0, n_greater_equal = 0;
  double mean = 0, m2 = 0, min = INFINITY, max = -INFINITY;
  for (int64_t s = 0; s < c.splits; ++s) {
    const auto at = static_cast<size_t>(s * c.n + row);
    count += got.count[at];
    n_greater += got.n_greater[at];
    n_greater_equal += got.n_greater_equal[at];
    mean += static_cast<double>(got.mean[at]) * static_cast<double>(got.count[at]);
    min = std::fmin(min, static_cast<double>(got.min[at]));
    max = std::fmax(max, static_cast<double>(got.max[at]));
  }
  if (count > 0) mean /= static_cast<double>(count);
  for (int64_t s = 0; s < c.splits; ++s) {
    const auto at = static_cast<size_t>(s * c.n + row);
    const double delta = static_cast<double>(got.mean[at]) - mean;
    m2 += static_cast<double>(got.m2[at]) + delta * delta * static_cast<double>(got.count[at]);
  }
  const std::string name = set == 0 ? " (mixed)" : " (unmixed)";
  const double error = expected.score_error + 1e-30;
  out.compare("neg_count" + name, row, static_cast<double>(count), static_cast<double>(expected.count), 0);
  out.compare("neg_mean" + name, row, mean, expected.mean, error);
  const double deviation = std::sqrt(expected.m2 * static_cast<double>(expected.count));
  out.compare("m2" + name, row, m2, expected.m2, 1e-5 * expected.m2 + 2 * error * deviation + error * error);
  out.compare("neg_min" + name, row, min, expected.min, error);
  out.compare("neg_max" + name, row, max, expected.max, error);
  out.require(n_greater >= expected.n_greater[0] && n_greater <= expected.n_greater[1], "n_greater" + name, row);
  out.require(n_greater_equal >= expected.n_greater_equal[0] && n_greater_equal <= expected.n_greater_equal[1],
              "n_greater_equal" + name, row);
  if (set == 0 || count == 0) return;
  double top = 0;
  const double log_sum = merged_log_sum(c, all.statistics[1].m, all.statistics[1].l, row, top);
  const double temperature = static_cast<double>(c.temperature);
  const double largest = std::fmax(std::fabs(expected.min), std::fabs(expected.max));
  out.compare("unmixed log-sum-exp", row, log_sum, expected.log_sum, (error + 0x1p-22 * largest) / temperature + 1e-6);
}

void check_row(const Inputs& in, const Out& out, int64_t row, Complaints& complaints) {
  const Case& c = in.c;
  double top = 0;
  const double log_sum = merged_log_sum(c, out.m, out.l, row, top);
  if (c.planted != 0.0f) {
    bool finite = std::isfinite(log_sum);
    if (c.sums)
      for (const double x : merged_mean(c, out, row, top)) finite = finite && std::isfinite(x);
    complaints.require(!finite, "a queue that is not finite gives a finite result", row);
    return;
  }
  const ExpectedRow expected = expected_row(in, row);
  if (c.k == 0) {
    for (int64_t s = 0; s < c.splits; ++s)
      complaints.require(
          out.l[static_cast<size_t>(s * c.n + row)] == 0.0f && out.m[static_cast<size_t>(s * c.n + row)] == -INFINITY,
          "m and l without columns", row);
    for (const float x : out.o) complaints.require(!c.sums || x == 0.0f, "O without columns", row);
  } else {
    complaints.compare("log-sum-exp", row, log_sum, expected.log_sum, expected.log_sum_error);
    if (c.sums) {
      const std::vector<double> mean = merged_mean(c, out, row, top);
      for (size_t f = 0; f < mean.size(); ++f)
        complaints.compare("feature " + std::to_string(f) + " of O / l", row, mean[f], expected.mean[f],
                           expected.mean_error[f]);
    }
  }
  for (int set = 0; set < 2; ++set)
    if (gathers(c, set)) check_statistics(c, out, set, row, expected.statistics[set], complaints);
}

void check_extent(const Inputs& in, const Out& out, Complaints& complaints) {
  if (out.extent.empty() || in.c.planted != 0.0f) return;
  float expected = 0.0f, got = 0.0f;
  for (const Rows& rows : in.segments)
    for (int64_t j = 0; j < rows.count; ++j)
      for (int64_t f = 0; f < in.c.d; ++f)
        expected =
            std::fmax(expected, std::fabs(reinterpret_cast<const float*>(rows.bytes.get())[j * rows.stride + f]));
  for (const float x : out.extent) {
    complaints.require(!std::isnan(x), "an extent is not written; the first", 0);
    got = std::fmax(got, x);
  }
  complaints.require(got == expected, "the extent is wrong; the first", 0);
}

}  // namespace

std::string describe(const Case& c) {
  std::ostringstream text;
  const Kernel<MainParams> kernel = sm80::main_kernel(c.operand, c.tile, c.variant);
  text << (kernel.name ? kernel.name : "no kernel") << " n " << c.n << " k " << c.k << " d " << c.d << " splits "
       << c.splits << " columns " << static_cast<int>(c.columns) << " union " << c.is_union << " lambda "
       << (c.lambda_per_row ? "row " : "call ") << c.lambda_low << ".." << c.lambda_high << " sums " << c.sums
       << " padding " << c.padding << " misaligned " << c.misaligned << " temperature " << c.temperature << " growth "
       << c.growth << " size " << c.size << " mean " << c.mean << " planted " << c.planted << " seed " << c.seed
       << " schedule " << hostcuda::name_of(hostcuda::options().schedule);
  return text.str();
}

std::string check(const Case& c, std::vector<float>* results) {
  const Kernel<MainParams> kernel = sm80::main_kernel(c.operand, c.tile, c.variant);
  if (!kernel.function) return "there is no such kernel";
  Inputs in(c);
  Out out(in);
  const auto row_blocks = static_cast<unsigned>(static_cast<int64_t>(in.packed_scale.size()) / in.tile.rows());
  const Grid grid = {row_blocks, static_cast<unsigned>(c.splits)};
  const MainParams params = params_of(in, out, grid);
  const int code = hostcuda::launch({grid.x, grid.y, 1}, static_cast<unsigned>(kernel.threads),
                                    static_cast<size_t>(kernel.shared_bytes), kernel.name, nullptr,
                                    [&] { kernel.function(params); });
  if (code != 0) {
    const std::string failure = hostcuda::last_failure();
    return failure.empty() ? "the launch is refused with code " + std::to_string(code) : failure;
  }
  if (results)
    for (const auto* array : {&out.m, &out.l, &out.o}) results->insert(results->end(), array->begin(), array->end());
  Complaints complaints;
  for (int64_t row = 0; row < c.n; ++row) check_row(in, out, row, complaints);
  check_extent(in, out, complaints);
  return complaints.text();
}

}  // namespace main_pass
