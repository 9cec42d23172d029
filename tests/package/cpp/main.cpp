// flashnce.hpp from two translation units: errors throw, owners move, every call does what the C call does. Run under
// the address sanitizer too, which reports what an owner forgot to give back.
#include <flashnce/flashnce.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

// other.cpp
float loss_of_other_unit(const flashnce::Plan& plan, const flashnce::Args& args);
flashnce::Plan plan_of_other_unit(std::int64_t k);

namespace {

int failures = 0;
#define EXPECT(condition)                                          \
  do {                                                             \
    if (!(condition)) {                                            \
      std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      ++failures;                                                  \
    }                                                              \
  } while (false)

// The status and sentence of what `call` throws; FNCE_OK if it does not.
template <class Call>
std::pair<fnce_status, std::string> refusal(Call call) {
  try {
    call();
    return {FNCE_OK, ""};
  } catch (const flashnce::Error& error) {
    return {error.status(), error.what()};
  }
}

bool holds(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }
bool near(double value, double expected) { return std::fabs(value - expected) < 1e-6; }

const std::vector<float> kRows{1, 0, 1, 0}, kQueue{0, 1, 0, -1};
const double kLoss = std::log(1 + 2 * std::exp(-1.0));  // two negatives orthogonal to q = k, temperature 1

flashnce::Args new_args(float* loss) {
  flashnce::Args args;
  args.x_q = args.x_k = kRows.data();
  args.queue = kQueue.data();
  args.temperature = 1;
  args.loss = loss;
  return args;
}

static_assert(!std::is_copy_constructible_v<flashnce::Plan> && !std::is_copy_assignable_v<flashnce::Plan>);
static_assert(!std::is_copy_constructible_v<flashnce::Workspace> && !std::is_copy_assignable_v<flashnce::Workspace>);
static_assert(std::is_nothrow_move_constructible_v<flashnce::Plan> &&
              std::is_nothrow_move_assignable_v<flashnce::Plan>);
static_assert(std::is_nothrow_move_constructible_v<flashnce::Workspace>);
static_assert(sizeof(flashnce::Problem) == sizeof(fnce_problem) && sizeof(flashnce::Args) == sizeof(fnce_args));

void errors() {
  flashnce::Problem problem(flashnce::Preset::ft, -1, 2, 2);
  const auto [status, what] = refusal([&] { flashnce::Plan plan(problem); });
  EXPECT(status == FNCE_INVALID_ARGUMENT);
  EXPECT(holds(what, "FNCE_INVALID_ARGUMENT: ") && holds(what, "problem.n") && holds(what, "-1"));
  EXPECT(refusal([] { flashnce::set_threads(0); }).first == FNCE_INVALID_ARGUMENT);
  EXPECT(refusal([] { flashnce::device_count(77); }).first == FNCE_INVALID_ARGUMENT);
  EXPECT(refusal([] { flashnce::check(FNCE_OK); }).first == FNCE_OK);
  problem.n = 2;
  problem.k = -1;
  EXPECT(holds(refusal([&] { flashnce::permutation(problem, flashnce::Args()); }).second, "problem.k"));
}

void moves() {
  flashnce::Plan first = plan_of_other_unit(2), second = plan_of_other_unit(1);
  const fnce_plan* const handle = first.get();
  flashnce::Plan moved(std::move(first));
  EXPECT(moved.get() == handle && first.get() == nullptr);
  EXPECT(first.describe()[0] == '\0');
  EXPECT(holds(refusal([&] { first.info(); }).second, "plan is NULL"));
  EXPECT(holds(refusal([&] { first.workspace_bytes(); }).second, "plan is NULL"));
  second = std::move(moved);  // the plan that `second` had is destroyed
  EXPECT(second.get() == handle && moved.get() == nullptr);
  flashnce::Plan& same = second;
  second = std::move(same);
  EXPECT(second.get() == handle);

  flashnce::Workspace a(100), b(second);
  const void* const memory = b.data();
  EXPECT(reinterpret_cast<std::uintptr_t>(memory) % FNCE_ALIGNMENT == 0 && b.size() == second.workspace_bytes());
  a = std::move(b);
  EXPECT(a.data() == memory && b.data() == nullptr && b.size() == 0);
  flashnce::Workspace c(std::move(a));
  EXPECT(c.data() == memory && a.data() == nullptr);
  EXPECT(refusal([&] { flashnce::loss(second, new_args(nullptr), a); }).first == FNCE_WORKSPACE_TOO_SMALL);
}

void losses() {
  float loss = 0, dk[4] = {9, 9, 9, 9}, doubled[4];
  const flashnce::Problem problem(flashnce::Preset::moco, 2, 2, 2);
  const flashnce::Plan plan(problem);
  flashnce::Workspace workspace(plan);
  flashnce::Args args = new_args(&loss);
  args.dk = dk;
  flashnce::loss(plan, args, workspace);
  EXPECT(near(loss, kLoss) && dk[3] != 9 && std::strlen(plan.describe()) > 0);
  EXPECT(plan.info().family == FNCE_FAMILY_CPU && plan.info().workspace_bytes == workspace.size());
  flashnce::scale(kRows.data(), 2, 2, 2.0f, doubled);
  EXPECT(doubled[0] == 2 && doubled[1] == 0 && doubled[2] == 2 && kRows[0] == 1);
  const float upstream[] = {0, 3};
  flashnce::scale(FNCE_CPU, 0, kRows.data(), 2, 2, upstream, 2, FNCE_FLOAT32, doubled);
  EXPECT(doubled[0] == 0 && doubled[2] == 3);
  EXPECT(near(loss_of_other_unit(plan, args), kLoss));

  loss = 0;
  flashnce::Workspace for_run(flashnce::run_workspace(problem));
  flashnce::run(problem, args, for_run);
  EXPECT(near(loss, kLoss));

  float pos[2] = {0, 0};
  fnce_score_buffers out = {};
  out.pos = pos;
  flashnce::scores(plan, args, out, workspace);
  EXPECT(near(pos[0], 1) && near(pos[1], 1));
}

void steps() {
  float loss = 0, anchor[4];
  flashnce::Problem problem(flashnce::Preset::moco, 2, 2, 2);
  const flashnce::Plan whole(problem);
  flashnce::Workspace workspace(whole);
  flashnce::Args args = new_args(&loss);
  fnce_anchors anchors = {};
  anchors.anchor = anchor;
  flashnce::prep(whole, args, anchors, workspace);
  const std::size_t bytes = static_cast<std::size_t>(whole.partial_layout().bytes);
  std::vector<flashnce::Workspace> partials;
  problem.k = 1;
  problem.k_global = 2;
  for (std::int64_t shard = 0; shard < 2; ++shard) {
    problem.column_offset = shard;
    const flashnce::Plan plan(problem);
    flashnce::Workspace shard_workspace(plan);
    args.queue = kQueue.data() + 2 * shard;
    partials.emplace_back(bytes);
    flashnce::partial(plan, args, anchors, partials.back(), shard_workspace);
  }
  const void* const pointers[] = {partials[0].data(), partials[1].data()};
  flashnce::Workspace merged(bytes), rows(bytes);
  flashnce::merge(whole, pointers, 2, merged.data(), merged.size());
  flashnce::partial_rows(whole, merged.data(), 0, whole, rows.data(), rows.size());
  flashnce::finish(whole, args, rows, workspace);
  EXPECT(near(loss, kLoss));
}

// Both negatives are batch columns, in the queue's place.
void batch_columns() {
  float loss = 0, log_sum_exp[2] = {0, 0}, dx_c[4] = {9, 9, 9, 9};
  flashnce::Problem problem(flashnce::Preset::moco, 2, 0, 2);
  problem.batch_columns = 2;
  const flashnce::Plan plan(problem);
  flashnce::Workspace workspace(plan);
  flashnce::Args args = new_args(&loss);
  args.queue = nullptr;
  args.x_c = kQueue.data();
  args.log_sum_exp = log_sum_exp;
  flashnce::loss(plan, args, workspace);
  EXPECT(near(loss, kLoss) && near(log_sum_exp[1], std::log(std::exp(1.0) + 2)));
  // The mean of two rows, each of which sends its softmax times q.
  const double softmax = 1 / (std::exp(1.0) + 2);
  flashnce::columns_backward(plan, args, log_sum_exp, 3.0f, dx_c, workspace);
  EXPECT(near(dx_c[0], 3 * softmax) && near(dx_c[2], 3 * softmax) && near(dx_c[1], 0) && near(dx_c[3], 0));
  const float upstream[] = {0, 1};
  flashnce::columns_backward(plan, args, nullptr, log_sum_exp, upstream, 2, dx_c, workspace.data(), workspace.size());
  EXPECT(near(dx_c[0], softmax / 2) && near(dx_c[2], softmax / 2));
  EXPECT(refusal([&] { flashnce::columns_backward(plan, args, nullptr, 1.0f, dx_c, workspace); }).first ==
         FNCE_INVALID_ARGUMENT);
}

// Two pairs whose sides are equal and at right angles to each other.
void pairs() {
  const std::vector<float> x{1, 0, 0, 1};
  float loss = 0, dtemperature = 9, sums[2][2] = {}, da[4] = {9, 9, 9, 9};
  flashnce::Problem problem(flashnce::Preset::moco, 2, 0, 2);
  problem.form = FNCE_FORM_SYMMETRIC;
  const flashnce::Plan plan(problem);
  flashnce::Workspace workspace(plan);
  flashnce::Pairs args;
  args.x_a = args.x_b = x.data();
  args.temperature = 1;
  args.loss = &loss;
  args.a_log_sum_exp = sums[0];
  args.b_log_sum_exp = sums[1];
  args.da = da;
  args.dtemperature = &dtemperature;
  flashnce::symmetric(plan, args, workspace);
  EXPECT(near(loss, std::log(1 + std::exp(-1.0))) && near(sums[1][0], std::log(std::exp(1.0) + 1)));
  // Half of either direction, of the mean of two; along itself a normalised row has no gradient.
  const double share = 1 / (1 + std::exp(1.0));
  flashnce::symmetric_backward(plan, args, 3.0f, workspace);
  EXPECT(near(da[1], 3 * share / 2) && near(da[0], 0) && near(dtemperature, 3 * share));
  const float upstream[] = {0, 0};
  flashnce::symmetric_backward(plan, args, upstream, 2, workspace.data(), workspace.size());
  EXPECT(da[1] == 0 && dtemperature == 0);
  flashnce::Args others = new_args(&loss);
  EXPECT(refusal([&] { flashnce::loss(plan, others, workspace); }).first == FNCE_INVALID_ARGUMENT);
}

void queue_and_draws() {
  const std::vector<float> keys{0, 5};
  std::vector<float> queue{9, 9, 9, 9};
  std::int64_t position = 1;
  flashnce::Push push;
  push.n = 1;
  push.k = push.d = 2;
  push.keys = keys.data();
  push.queue = queue.data();
  push.position_in = push.position_out = &position;
  flashnce::push(push);
  EXPECT(position == 0 && queue == (std::vector<float>{9, 9, 0, 1}));

  flashnce::Problem problem(flashnce::Preset::ft_elementwise, 3, 5, 4);
  flashnce::Args args;
  args.seed = 11;
  EXPECT(flashnce::sample_lambda_pos(problem, args).size() == 12);
  EXPECT(flashnce::lambda_count(FNCE_LAMBDA_ELEMENT, 3, 5) == 15);
  EXPECT(flashnce::lambda_count(FNCE_LAMBDA_NONE, 3, 5) == 0);
  EXPECT(flashnce::lambda_count(FNCE_LAMBDA_ELEMENT, INT64_MAX, 2) == 0);
  EXPECT(flashnce::sample_lambda_neg(problem, args).size() == 20);
  std::int32_t sum = 0;
  for (const std::int32_t index : flashnce::permutation(problem, args)) sum += index;
  EXPECT(sum == 10);
  problem.lambda_neg = FNCE_LAMBDA_NONE;
  problem.columns = FNCE_COLUMNS_QUEUE;
  EXPECT(refusal([&] { flashnce::sample_lambda_neg(problem, args); }).first == FNCE_INVALID_ARGUMENT);

  flashnce::set_threads(2);
  EXPECT(flashnce::get_threads() == 2 && flashnce::device_count(FNCE_CPU) == 1);
  EXPECT(flashnce::version() == FNCE_VERSION && std::strlen(flashnce::build_info()) > 0);
}

}  // namespace

int main() {
  errors();
  moves();
  losses();
  steps();
  batch_columns();
  pairs();
  queue_and_draws();
  std::printf("C++ %ld, %d failures\n", static_cast<long>(__cplusplus), failures);
  return failures == 0 ? 0 : 1;
}
