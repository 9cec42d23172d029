// A training loop without a framework: a linear encoder, its momentum copy and a queue of negatives, trained by the
// gradient that FlashNCE returns, equations (7), (8) and (10), with the feature transformation.
//
// A sample is 8 numbers that both its views share and 24 numbers of noise that they do not: the loss falls when the
// encoder has learnt to look away from the noise. The exit status is 1 if it does not fall.
#include <flashnce/flashnce.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <random>
#include <vector>

namespace {

constexpr int kBatch = 64, kQueue = 1024, kInputs = 32, kShared = 8, kFeatures = 16, kSteps = 300, kAveraged = 50;
constexpr float kLearningRate = 0.5f, kMomentum = 0.9f, kNoise = 1.0f, kTemperature = 0.2f;

using Matrix = std::vector<float>;  // row-major

// Returns the mean loss of q [kBatch,kFeatures] with keys k and writes its gradient to dq.
float loss_of(const flashnce::Plan& plan, const Matrix& q, const Matrix& k, const Matrix& queue, uint64_t seed,
              Matrix& dq, flashnce::Workspace& workspace) {
  float loss = 0;
  flashnce::Args args;
  args.x_q = q.data();
  args.x_k = k.data();
  args.queue = queue.data();
  args.temperature = kTemperature;
  args.seed = seed;
  args.loss = &loss;
  args.dq = dq.data();
  flashnce::loss(plan, args, workspace);
  return loss;
}

void push(const Matrix& keys, Matrix& queue, int64_t& position) {
  flashnce::Push batch;
  batch.n = kBatch;
  batch.k = kQueue;
  batch.d = kFeatures;
  batch.keys = keys.data();
  batch.queue = queue.data();
  batch.position_in = batch.position_out = &position;
  flashnce::push(batch);
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

  const flashnce::Plan plan(flashnce::Problem(flashnce::Preset::ft, kBatch, kQueue, kFeatures));
  flashnce::Workspace workspace(plan);  // of all steps
  std::printf("%s\n", plan.describe());
  double early = 0, late = 0;
  for (int step = 0; step < kSteps; ++step) {
    draw_views(rng, x_q, x_k);
    encode(x_q, weights, q);
    encode(x_k, momentum_weights, k);
    const float loss = loss_of(plan, q, k, queue, /*seed=*/step, dq, workspace);
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
