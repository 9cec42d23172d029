// A training loop without a framework: a linear encoder, its momentum copy and a queue of negatives, trained by the
// gradient that FlashNCE returns, equations (7), (8) and (10), with the feature transformation.
//
// A sample is 8 numbers that both its views share and 24 numbers of noise that they do not: the loss falls when the
// encoder has learnt to look away from the noise. The exit status is 1 if it does not fall.
#include <flashnce/flashnce.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int kBatch = 64, kQueue = 1024, kInputs = 32, kShared = 8, kFeatures = 16, kSteps = 300, kAveraged = 50;
constexpr float kLearningRate = 0.5f, kMomentum = 0.9f, kNoise = 1.0f, kTemperature = 0.2f;

using Matrix = std::vector<float>;  // row-major

void check(fnce_status status) {
  if (status != FNCE_OK) throw std::runtime_error(std::string(fnce_status_string(status)) + ": " + fnce_last_error());
}

struct PlanDeleter {
  void operator()(fnce_plan* plan) const { fnce_plan_destroy(plan); }
};

struct AlignedDeleter {
  void operator()(void* memory) const { std::free(memory); }
};

// The plan of one shape with its workspace; one call per step.
class Loss {
 public:
  Loss() {
    fnce_problem problem;
    check(fnce_problem_init(&problem, sizeof problem, FNCE_PRESET_FT));
    problem.n = kBatch;
    problem.k = kQueue;
    problem.d = kFeatures;
    fnce_plan* plan = nullptr;
    check(fnce_plan_create(&problem, &plan));
    plan_.reset(plan);
    check(fnce_plan_workspace(plan, &bytes_));
    const size_t rounded = (bytes_ / FNCE_ALIGNMENT + 1) * FNCE_ALIGNMENT;
    workspace_.reset(std::aligned_alloc(FNCE_ALIGNMENT, rounded));
    if (!workspace_) throw std::bad_alloc();
  }

  const char* describe() const { return fnce_plan_describe(plan_.get()); }

  // Returns the mean loss of q [kBatch,kFeatures] with keys k and writes its gradient to dq.
  float operator()(const Matrix& q, const Matrix& k, const Matrix& queue, uint64_t seed, Matrix& dq) {
    float loss = 0;
    fnce_args args;
    check(fnce_args_init(&args, sizeof args));
    args.x_q = q.data();
    args.x_k = k.data();
    args.queue = queue.data();
    args.temperature = kTemperature;
    args.seed = seed;
    args.loss = &loss;
    args.dq = dq.data();
    check(fnce_loss(plan_.get(), &args, workspace_.get(), bytes_, nullptr));
    return loss;
  }

 private:
  std::unique_ptr<fnce_plan, PlanDeleter> plan_;
  std::unique_ptr<void, AlignedDeleter> workspace_;
  size_t bytes_ = 0;
};

void push(const Matrix& keys, Matrix& queue, int64_t& position) {
  fnce_push push;
  check(fnce_push_init(&push, sizeof push));
  push.n = kBatch;
  push.k = kQueue;
  push.d = kFeatures;
  push.keys = keys.data();
  push.queue = queue.data();
  push.position_in = push.position_out = &position;
  check(fnce_queue_push(&push, nullptr));
}

// Two views [kBatch,kInputs] of the same samples.
void draw_views(std::mt19937& rng, Matrix& first, Matrix& second) {
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < first.size(); ++i) {
    const bool shared = i % kInputs < kShared;
    first[i] = shared ? normal(rng) : kNoise * normal(rng);
    second[i] = shared ? first[i] : kNoise * normal(rng);
  }
}

// features [kBatch,kFeatures] = x [kBatch,kInputs] times weights [kInputs,kFeatures]
void encode(const Matrix& x, const Matrix& weights, Matrix& features) {
  features.assign(features.size(), 0.0f);
  for (int i = 0; i < kBatch; ++i)
    for (int c = 0; c < kInputs; ++c)
      for (int f = 0; f < kFeatures; ++f)
        features[i * kFeatures + f] += x[i * kInputs + c] * weights[c * kFeatures + f];
}

// weights -= rate * x^T dq
void descend(const Matrix& x, const Matrix& dq, Matrix& weights) {
  for (int i = 0; i < kBatch; ++i)
    for (int c = 0; c < kInputs; ++c)
      for (int f = 0; f < kFeatures; ++f)
        weights[c * kFeatures + f] -= kLearningRate * x[i * kInputs + c] * dq[i * kFeatures + f];
}

int train() {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  Matrix weights(kInputs * kFeatures), queue(kQueue * kFeatures), q(kBatch * kFeatures), k(q), dq(q);
  Matrix x_q(kBatch * kInputs), x_k(x_q);
  for (float& w : weights) w = 0.2f * normal(rng);
  Matrix momentum_weights = weights;
  int64_t position = 0;
  for (int filled = 0; filled < kQueue; filled += kBatch) {  // negatives that the encoder could have made
    draw_views(rng, x_q, x_k);
    encode(x_k, momentum_weights, k);
    push(k, queue, position);
  }

  Loss criterion;
  std::printf("%s\n", criterion.describe());
  double early = 0, late = 0;
  for (int step = 0; step < kSteps; ++step) {
    draw_views(rng, x_q, x_k);
    encode(x_q, weights, q);
    encode(x_k, momentum_weights, k);
    const float loss = criterion(q, k, queue, /*seed=*/step, dq);
    descend(x_q, dq, weights);
    for (size_t i = 0; i < weights.size(); ++i)
      momentum_weights[i] += (1 - kMomentum) * (weights[i] - momentum_weights[i]);
    push(k, queue, position);  // after the loss: a key is not its own negative
    if (step % kAveraged == 0) std::printf("step %3d  loss %.3f\n", step, loss);
    if (step < kAveraged) early += loss / kAveraged;
    if (step >= kSteps - kAveraged) late += loss / kAveraged;
  }
  std::printf("mean loss of the first %d steps %.3f, of the last %.3f\n", kAveraged, early, late);
  return late < 0.9 * early ? 0 : 1;  // not < early: the transformation's lambda makes the loss of a step jump
}

}  // namespace

int main() {
  try {
    return train();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
