// Calls of the library on a device.
#include "gpu/calls.h"

#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace fnce::gpu {
namespace {

// SplitMix64.
uint64_t next_random(uint64_t& state) {
  uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

std::vector<float> random_rows(int64_t rows, int64_t d, uint64_t seed, bool unit) {
  std::vector<float> values(static_cast<size_t>(rows * d));
  for (float& value : values) value = static_cast<float>(static_cast<double>(next_random(seed) >> 11) * 0x1p-52 - 1.0);
  for (int64_t i = 0; unit && i < rows; ++i) {
    float* row = values.data() + i * d;
    double sum = 0;
    for (int64_t c = 0; c < d; ++c) sum += double{row[c]} * row[c];
    for (int64_t c = 0; c < d; ++c) row[c] = static_cast<float>(row[c] / std::sqrt(sum));
  }
  return values;
}

// Rounded by the library on the CPU.
Memory in_type(const std::vector<float>& values, int32_t type) {
  const float one = 1;
  const int64_t count = static_cast<int64_t>(values.size());
  std::vector<unsigned char> bytes(values.size() * (type == FNCE_FLOAT32 ? 4 : 2));
  FNCE_GPU_CHECK(fnce_scale(FNCE_CPU, 0, values.data(), 1, count, &one, 1, type, bytes.data(), nullptr));
  return Memory(bytes);
}

// A tile that only many queries would get.
Case large(const char* name, int64_t n, int64_t d, int32_t queue_type, int block_rows,
           int32_t precision = FNCE_PRECISION_EXACT) {
  Case c = {name, FNCE_PRESET_FT, n, 320, d, FNCE_FLOAT32, queue_type, precision};
  c.block_rows = block_rows;
  return c;
}

// Columns beyond the queue.
std::vector<Case> columns_cases() {
  constexpr int32_t f16 = FNCE_FLOAT16, b16 = FNCE_BFLOAT16, both = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
  constexpr int32_t moco = FNCE_PRESET_MOCO, ft = FNCE_PRESET_FT, element = FNCE_PRESET_FT_ELEMENTWISE;
  return {
      {.name = "moco f32 batch", .preset = moco, .n = 37, .k = 130, .d = 64, .batch = 90},
      {.name = "ft f16 batch, scores",
       .preset = ft,
       .n = 37,
       .k = 130,
       .d = 128,
       .feature_type = f16,
       .queue_type = f16,
       .scores = both,
       .batch = 37},
      {.name = "ft bf16 union, batch, decoupled",
       .preset = ft,
       .n = 20,
       .k = 130,
       .d = 256,
       .feature_type = b16,
       .queue_type = b16,
       .columns = FNCE_COLUMNS_UNION,
       .batch = 20,
       .decoupled = true},
      {.name = "moco bf16 batch alone, masks",
       .preset = moco,
       .n = 70,
       .k = 0,
       .d = 128,
       .feature_type = b16,
       .queue_type = b16,
       .scores = both,
       .batch = 140,
       .masks = true},
      {.name = "ft f32 per row, union, batch, masks, scores",
       .preset = ft,
       .n = 37,
       .k = 299,
       .d = 64,
       .lambda_neg = FNCE_LAMBDA_ROW,
       .columns = FNCE_COLUMNS_UNION,
       .scores = both,
       .batch = 37,
       .masks = true},
      {.name = "ft-elementwise f16 batch, masks",
       .preset = element,
       .n = 17,
       .k = 130,
       .d = 128,
       .feature_type = f16,
       .queue_type = f16,
       .batch = 50,
       .masks = true},
  };
}

}  // namespace

std::vector<Case> small_cases() {
  constexpr int32_t f32 = FNCE_FLOAT32, f16 = FNCE_FLOAT16, b16 = FNCE_BFLOAT16, fast = FNCE_PRECISION_FAST;
  constexpr int32_t exact = FNCE_PRECISION_EXACT, both = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
  constexpr int32_t moco = FNCE_PRESET_MOCO, ft = FNCE_PRESET_FT, element = FNCE_PRESET_FT_ELEMENTWISE;
  std::vector<Case> cases = {
      {"moco f32", moco, 37, 300, 64, f32, f32},
      {"moco f32 fast", moco, 37, 300, 128, f32, f32, fast},
      {"moco f16 d128", moco, 33, 300, 128, f16, f16},
      {"moco bf16 d256", moco, 70, 300, 256, b16, b16},
      {"moco f16 d512", moco, 20, 300, 512, f32, f16},
      {"moco f32 d20", moco, 9, 75, 20, f32, f32},
      {"moco f32 d700", moco, 5, 75, 700, f32, f32},
      {"ft f32", ft, 37, 299, 128, f32, f32},
      {"ft f16", ft, 37, 299, 128, f16, f16},
      {"ft bf16 d64", ft, 65, 256, 64, b16, b16},
      {"ft f16 per row", ft, 37, 299, 128, f16, f16, exact, FNCE_LAMBDA_ROW},
      {"ft f16 union", ft, 37, 299, 128, f16, f16, exact, -1, FNCE_COLUMNS_UNION},
      {"ft f16 per dimension", ft, 37, 299, 128, f16, f16, exact, FNCE_LAMBDA_DIMENSION},
      {"ft f16 scores", ft, 37, 299, 128, f16, f16, exact, -1, -1, both},
      {"ft f32 scores d96", ft, 37, 299, 96, f32, f32, exact, -1, -1, both},
      {"ft-elementwise f32", element, 17, 130, 64, f32, f32},
      {"ft-elementwise bf16", element, 17, 130, 128, b16, b16},
      {"moco without negatives", moco, 7, 0, 32, f32, f32},
      // float32 beyond what float16 holds is computed again by the plain kernel; rows beyond shared memory; divided
      // features.
      {.name = "moco f32 large values", .preset = moco, .n = 9, .k = 130, .d = 64, .queue_norm = 100},
      {.name = "moco f32 d1100", .preset = moco, .n = 5, .k = 75, .d = 1100},
      {.name = "ft f32 d512 scores", .preset = ft, .n = 20, .k = 130, .d = 512, .scores = both},
      {.name = "ft f32 fast d512", .preset = ft, .n = 20, .k = 130, .d = 512, .precision = fast},
      {"ft f16 d256 scores", ft, 37, 299, 256, f16, f16, exact, -1, -1, both},
      {"ft bf16 d512 scores", ft, 20, 130, 512, b16, b16, exact, -1, -1, both},
      {"ft f16 per row, union, scores", ft, 37, 299, 128, f16, f16, exact, FNCE_LAMBDA_ROW, FNCE_COLUMNS_UNION, both},
      {"ft-elementwise f16 union", element, 17, 130, 128, f16, f16, exact, -1, FNCE_COLUMNS_UNION},
      {.name = "ft f32 renormalised", .preset = ft, .n = 17, .k = 130, .d = 64, .renormalizes = true},
      {.name = "ft f32 given permutation", .preset = ft, .n = 17, .k = 130, .d = 64, .gives_permutation = true},
      large("ft f16 d64, 128 rows", 150, 64, f16, 128),
      large("ft f16 d128, 64 rows", 50, 128, f16, 64),
      large("ft f16 d128, 128 rows", 200, 128, f16, 128),
      large("ft f16 d256, 64 rows", 50, 256, f16, 64),
      large("ft f16 d512, 64 rows", 50, 512, f16, 64),
      large("ft bf16 d64, 128 rows", 150, 64, b16, 128),
      large("ft bf16 d128, 128 rows", 200, 128, b16, 128),
      large("ft f32 d64, 128 rows", 150, 64, f32, 128),
      large("ft f32 d128, 64 rows", 50, 128, f32, 64),
      large("ft f32 d256, 64 rows", 50, 256, f32, 64),
      large("ft f32 fast d64, 128 rows", 150, 64, f32, 128, fast),
      large("ft f32 fast d128, 128 rows", 150, 128, f32, 128, fast),
  };
  const std::vector<Case> columns = columns_cases();
  cases.insert(cases.end(), columns.begin(), columns.end());
  return cases;
}

std::vector<Case> training_cases() {
  constexpr int32_t f32 = FNCE_FLOAT32, f16 = FNCE_FLOAT16, b16 = FNCE_BFLOAT16, ft = FNCE_PRESET_FT;
  return {
      {"ft f16 32x65536x128", ft, 32, 65536, 128, f16, f16},
      {"ft f16 256x65536x128", ft, 256, 65536, 128, f16, f16},
      {"ft f32 256x16384x128", ft, 256, 16384, 128, f32, f32},
      {"ft bf16 1024x16384x256", ft, 1024, 16384, 256, b16, b16},
      {"moco f16 256x4096x512", FNCE_PRESET_MOCO, 256, 4096, 512, f16, f16},
      {.name = "moco bf16 batch of 1024x1024x128",
       .preset = FNCE_PRESET_MOCO,
       .n = 1024,
       .k = 0,
       .d = 128,
       .feature_type = b16,
       .queue_type = b16,
       .batch = 1024},
      {"ft-elementwise f16 64x4096x128", FNCE_PRESET_FT_ELEMENTWISE, 64, 4096, 128, f16, f16},
  };
}

std::shared_ptr<const Inputs> inputs_of(const Case& c, uint64_t seed) {
  const std::vector<float> x_q = random_rows(c.n, c.d, 3 * seed, false);
  std::vector<float> x_k = random_rows(c.n, c.d, 3 * seed + 1, false);
  for (size_t i = 0; i < x_k.size(); ++i) x_k[i] = x_q[i] + 0.5f * x_k[i];
  auto inputs = std::make_shared<Inputs>();
  inputs->x_q = in_type(x_q, c.feature_type);
  inputs->x_k = in_type(x_k, c.feature_type);
  std::vector<float> queue = random_rows(c.k, c.d, 3 * seed + 2, true);
  for (float& value : queue) value *= c.queue_norm;
  inputs->queue = in_type(queue, c.queue_type);
  std::vector<int32_t> permutation(static_cast<size_t>(c.k));
  for (int64_t i = 0; i < c.k; ++i) permutation[static_cast<size_t>(i)] = static_cast<int32_t>((i * 7 + 3) % c.k);
  inputs->permutation = Memory(permutation);
  inputs->x_c = in_type(random_rows(c.batch, c.d, 3 * seed + 5, false), c.feature_type);
  const auto ids = [](int64_t count, int64_t step) {
    std::vector<int64_t> list(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) list[static_cast<size_t>(i)] = i % 11 == 10 ? FNCE_NO_COLUMN : i * step % 7;
    return Memory(list);
  };
  inputs->query_ids = ids(c.n, 1);
  inputs->column_ids = ids(c.k, 3);
  inputs->batch_ids = ids(c.batch, 2);
  const auto biases = [](int64_t count) {
    std::vector<float> list(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i)
      list[static_cast<size_t>(i)] = i % 13 == 12 ? -INFINITY : static_cast<float>(i % 5) * 0.25f;
    return Memory(list);
  };
  inputs->column_bias = biases(c.k);
  inputs->batch_bias = biases(c.batch);
  inputs->upstream = Memory(std::vector<float>{-0.5f});
  return inputs;
}

Plan::Plan(const Case& c) {
  FNCE_GPU_CHECK(fnce_problem_init(&problem_, sizeof problem_, c.preset));
  problem_.n = c.n;
  problem_.k = c.k;
  problem_.d = c.d;
  problem_.device = device_kind();
  problem_.feature_type = c.feature_type;
  problem_.queue_type = c.queue_type;
  problem_.precision = c.precision;
  if (c.lambda_neg >= 0) problem_.lambda_neg = c.lambda_neg;
  if (c.columns >= 0) problem_.columns = c.columns;
  problem_.scores = c.scores;
  problem_.batch_columns = c.batch;
  problem_.id_mask = problem_.column_bias = problem_.margin_mask = c.masks;
  problem_.form = c.decoupled ? FNCE_FORM_DECOUPLED : FNCE_FORM_INFO_NCE;
  problem_.renormalize_pos = problem_.renormalize_neg = c.renormalizes;
  if (c.gives_permutation) problem_.permutation_source = FNCE_GIVEN;
  if (c.block_rows > 0) setenv("FNCE_MULTIPROCESSORS", "1", 1);
  const fnce_status status = fnce_plan_create(&problem_, &plan_);
  if (c.block_rows > 0) unsetenv("FNCE_MULTIPROCESSORS");
  check(status, "fnce_plan_create");
  FNCE_GPU_CHECK(fnce_plan_get_info(plan_, &info_, sizeof info_));
  if (c.block_rows == 0 || info_.family != FNCE_FAMILY_SM80 || info_.block_rows == c.block_rows) return;
  const std::string words = fnce_plan_describe(plan_);
  fnce_plan_destroy(plan_);
  throw std::runtime_error("blocks are not of " + std::to_string(c.block_rows) + " queries: " + words);
}

size_t Plan::workspace_bytes() const {
  size_t bytes = 0;
  FNCE_GPU_CHECK(fnce_plan_workspace(plan_, &bytes));
  return bytes;
}

Call::Call(std::shared_ptr<const Plan> plan, std::shared_ptr<const Inputs> inputs)
    : plan_(std::move(plan)), inputs_(std::move(inputs)) {
  const fnce_problem& p = plan_->problem();
  const size_t n = static_cast<size_t>(p.n), elements = n * static_cast<size_t>(p.d);
  fnce_layout layout;
  FNCE_GPU_CHECK(fnce_partial_layout(plan_->get(), &layout, sizeof layout));
  workspace_ = Memory(plan_->workspace_bytes());
  loss_ = Memory(sizeof(float));
  dq_ = Memory(elements * sizeof(float));
  dk_ = Memory(elements * sizeof(float));
  dtemperature_rows_ = Memory(n * sizeof(float));
  dtemperature_ = Memory(sizeof(float));
  floats_ = Memory(12 * n * sizeof(float));
  integers_ = Memory(6 * n * sizeof(int64_t));
  numbers_ = Memory(3 * sizeof(uint64_t));
  anchor_ = Memory(elements * sizeof(float));
  positives_ = Memory(2 * n * sizeof(float));
  partial_ = Memory(layout.bytes);

  FNCE_GPU_CHECK(fnce_args_init(&args_, sizeof args_));
  args_.x_q = inputs_->x_q.get();
  args_.x_k = inputs_->x_k.get();
  args_.queue = p.k > 0 ? inputs_->queue.get() : nullptr;
  if (p.permutation_source == FNCE_GIVEN) {
    args_.permutation = inputs_->permutation.as<int32_t>();
    args_.checks = FNCE_CHECK_PERMUTATION;
  }
  args_.loss = loss_.as<float>();
  args_.dq = dq_.get();
  args_.dk = dk_.get();
  args_.dtemperature_rows = dtemperature_rows_.as<float>();
  args_.dtemperature = dtemperature_.as<float>();
  args_.seed_pointer = numbers_.as<uint64_t>();
  args_.offset_pointer = numbers_.as<uint64_t>() + 1;
  args_.temperature_pointer = reinterpret_cast<float*>(numbers_.as<uint64_t>() + 2);
  float* f = floats_.as<float>();
  int64_t* i = integers_.as<int64_t>();
  const auto next = [n](auto*& pointer) { return std::exchange(pointer, pointer + n); };
  for (fnce_score_buffers* b : {&args_.mixed, &args_.unmixed}) {
    if (!(p.scores & (b == &args_.mixed ? FNCE_SCORES_MIXED : FNCE_SCORES_UNMIXED))) continue;
    for (float** field : {&b->pos, &b->neg_mean, &b->neg_variance, &b->neg_min, &b->neg_max, &b->neg_log_mean_exp})
      *field = next(f);
    for (int64_t** field : {&b->neg_count, &b->n_greater, &b->n_greater_equal}) *field = next(i);
  }
  set_columns();
  set(1, 0, 0.1f);
}

void Call::set_columns() {
  const fnce_problem& p = plan_->problem();
  const auto n = static_cast<size_t>(p.n), elements = static_cast<size_t>(p.batch_columns * p.d);
  log_sum_exp_ = Memory(n * sizeof(float));
  dx_c_ = Memory(elements * sizeof(float));
  if (p.batch_columns > 0) {
    args_.x_c = inputs_->x_c.get();
    args_.log_sum_exp = log_sum_exp_.as<float>();
  }
  if (!p.id_mask) return;
  args_.margin = 0.5f;
  args_.query_ids = inputs_->query_ids.as<int64_t>();
  if (p.k > 0) {
    args_.column_ids = inputs_->column_ids.as<int64_t>();
    args_.column_bias = inputs_->column_bias.as<float>();
  }
  if (p.batch_columns == 0) return;
  args_.batch_ids = inputs_->batch_ids.as<int64_t>();
  args_.batch_bias = inputs_->batch_bias.as<float>();
}

void Call::set(uint64_t seed, uint64_t offset, float temperature) {
  uint64_t values[3] = {seed, offset, 0};
  std::memcpy(&values[2], &temperature, sizeof temperature);
  numbers_.upload(values, sizeof values);
}

void Call::spoil() {
  for (Memory* memory : {&workspace_, &loss_, &dq_, &dk_, &dtemperature_rows_, &dtemperature_, &floats_, &integers_,
                         &anchor_, &positives_, &partial_, &log_sum_exp_, &dx_c_})
    memory->fill(0xAB);
}

void Call::enqueue(const Stream& stream) const {
  FNCE_GPU_CHECK(fnce_loss(plan_->get(), &args_, workspace_.get(), workspace_.bytes(), stream.get()));
  enqueue_backward(nullptr, stream);
}

void Call::enqueue_backward(const fnce_anchors* anchors, const Stream& stream) const {
  if (plan_->problem().batch_columns == 0) return;
  FNCE_GPU_CHECK(fnce_columns_backward(plan_->get(), &args_, anchors, log_sum_exp_.as<float>(),
                                       inputs_->upstream.as<float>(), 1, dx_c_.get(), workspace_.get(),
                                       workspace_.bytes(), stream.get()));
}

void Call::enqueue_steps(const Stream& stream) const {
  const fnce_plan* plan = plan_->get();
  fnce_anchors anchors{};
  anchors.anchor = anchor_.get();
  anchors.pos = positives_.as<float>();
  anchors.unmixed_pos = positives_.as<float>() + plan_->problem().n;
  void* const workspace = workspace_.get();
  const size_t bytes = workspace_.bytes();
  FNCE_GPU_CHECK(fnce_prep(plan, &args_, &anchors, workspace, bytes, stream.get()));
  FNCE_GPU_CHECK(
      fnce_partial(plan, &args_, &anchors, partial_.get(), partial_.bytes(), workspace, bytes, stream.get()));
  FNCE_GPU_CHECK(fnce_finish(plan, &args_, partial_.get(), partial_.bytes(), workspace, bytes, stream.get()));
  enqueue_backward(&anchors, stream);
}

std::vector<unsigned char> Call::results() const {
  std::vector<unsigned char> bytes;
  for (const Memory* memory : {&loss_, &dq_, &dk_, &dtemperature_rows_, &dtemperature_, &floats_, &integers_})
    memory->append_to(bytes);
  if (plan_->problem().batch_columns == 0) return bytes;
  log_sum_exp_.append_to(bytes);
  dx_c_.append_to(bytes);
  return bytes;
}

float Call::loss() const {
  std::vector<unsigned char> bytes;
  loss_.append_to(bytes);
  float value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::string difference(const std::vector<unsigned char>& a, const std::vector<unsigned char>& b) {
  size_t bad = 0, first = 0;
  for (size_t i = a.size(); i-- > 0;)
    if (a[i] != b[i]) ++bad, first = i;
  return bad == 0 ? ""
                  : std::to_string(bad) + " of " + std::to_string(a.size()) + " bytes differ, the first at " +
                        std::to_string(first);
}

}  // namespace fnce::gpu
