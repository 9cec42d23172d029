// Launches: indices, schedules, what is refused, how faults are reported, threads that meet.
#include "hostcuda/launch.h"

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <numeric>
#include <thread>
#include <tuple>
#include <vector>

#include "hostcuda/device.h"
#include "hostcuda/selftest/problems.h"
#include "support/catch.h"

namespace {

using hostcuda::Grid3;
using hostcuda::Options;
using hostcuda::Schedule;

constexpr unsigned kAll = 0xffffffffu;

// Options for one scope.
class With {
 public:
  explicit With(Options options) : before_(hostcuda::options()) { hostcuda::set_options(options); }
  ~With() { hostcuda::set_options(before_); }
  With(const With&) = delete;
  With& operator=(const With&) = delete;

 private:
  Options before_;
};

int launch(Grid3 grid, unsigned threads, const std::function<void()>& body, size_t shared = 0) {
  return hostcuda::launch(grid, threads, shared, "test", nullptr, body);
}

}  // namespace

TEST_CASE("hostcuda: every thread of every block runs once, under every schedule") {
  for (const Schedule schedule : hostcuda::kSchedules)
    for (const unsigned workers : {1u, 3u}) {
      const With options({.schedule = schedule, .workers = workers});
      std::array<std::atomic<int>, 2 * 3 * 4 * 96> seen = {};
      CHECK(launch({2, 3, 4}, 96, [&] {
              const unsigned block = blockIdx.x + 2 * (blockIdx.y + 3 * blockIdx.z);
              ++seen[block * 96 + threadIdx.x];
              if (blockDim.x != 96 || gridDim.x != 2 || gridDim.y != 3 || gridDim.z != 4) hostcuda::fail("wrong sizes");
            }) == 0);
      for (const auto& count : seen) CHECK(count == 1);
    }
}

TEST_CASE("hostcuda: schedules are what they say") {
  const auto order_of = [](Schedule schedule, uint64_t seed) {
    const With options({.schedule = schedule, .seed = seed});
    std::array<std::atomic<unsigned>, 256> order;
    std::atomic<size_t> count{0};
    REQUIRE(launch({1, 1, 1}, 128, [&] {
              order[count++] = threadIdx.x;
              __syncthreads();
              order[count++] = threadIdx.x;
            }) == 0);
    REQUIRE(count == 256);
    return std::vector<unsigned>(order.begin(), order.end());
  };
  std::vector<unsigned> ascending(128);
  std::iota(ascending.begin(), ascending.end(), 0u);
  const std::vector<unsigned> forward = order_of(Schedule::kForward, 1), reverse = order_of(Schedule::kReverse, 1);
  CHECK(std::vector<unsigned>(forward.begin(), forward.begin() + 128) == ascending);
  CHECK(std::vector<unsigned>(reverse.begin(), reverse.begin() + 128) ==
        std::vector<unsigned>(ascending.rbegin(), ascending.rend()));
  CHECK(order_of(Schedule::kRandom, 1) == order_of(Schedule::kRandom, 1));
  CHECK(order_of(Schedule::kRandom, 1) != order_of(Schedule::kRandom, 2));
  const std::vector<unsigned> warp = order_of(Schedule::kWarp, 1);
  for (size_t i = 0; i < 128; ++i) CHECK(warp[i] / 32 == warp[i / 32 * 32] / 32);
}

TEST_CASE("hostcuda: launches that CUDA would refuse") {
  const auto nothing = [] {};
  CHECK(launch({1, 1, 1}, 1025, nothing) == cudaErrorInvalidConfiguration);
  CHECK(launch({1, 1, 1}, 0, nothing) == cudaErrorInvalidConfiguration);
  CHECK(launch({0, 1, 1}, 32, nothing) == cudaErrorInvalidConfiguration);
  CHECK(launch({1, 65536, 1}, 32, nothing) == cudaErrorInvalidConfiguration);
  CHECK(launch({1, 1, 65536}, 32, nothing) == cudaErrorInvalidConfiguration);
  CHECK(launch({1, 1, 1}, 32, nothing, 99 * 1024 + 1) == cudaErrorInvalidValue);
  CHECK(launch({1, 65535, 1}, 1, nothing) == 0);
  CHECK(launch({1, 1, 1}, 1024, nothing, 99 * 1024) == 0);
}

TEST_CASE("hostcuda: a fault ends the launch, names its place, and leaves the next launch alone") {
  const With options({.quiet = true});
  for (int i = 0; i < 3; ++i) {
    CHECK(launch({5, 2, 1}, 64, [] {
            if (blockIdx.x == 3 && blockIdx.y == 1 && threadIdx.x == 40) hostcuda::fail("%d was wrong", 7);
            __syncthreads();
          }) == cudaErrorLaunchFailure);
    CHECK(hostcuda::last_failure() == "kernel test, thread 40 of block (3, 1, 0): 7 was wrong");
    CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
    CHECK(launch({5, 2, 1}, 64, [] { __syncthreads(); }) == 0);
  }
  CHECK(launch({1, 1, 1}, 64, [] {
          if (threadIdx.x < 32) __syncwarp();
          if (threadIdx.x == 3) __syncwarp();
          __syncthreads();
        }) == cudaErrorLaunchFailure);
  CHECK(hostcuda::last_failure().find("deadlock: in block (0, 0, 0) thread ") != std::string::npos);
  CHECK(hostcuda::last_failure().find("of 64 threads live") != std::string::npos);
  CHECK(launch({1, 1, 1}, 40, [] { __syncwarp(); }) == cudaErrorLaunchFailure);
  CHECK(hostcuda::last_failure().find("no multiple of 32") != std::string::npos);
}

TEST_CASE("hostcuda: new shared memory holds NaNs, is aligned and belongs to one block") {
  const With options({.workers = 2});
  CHECK(launch(
            {40, 1, 1}, 64,
            [] {
              float* shared = reinterpret_cast<float*>(hostcuda::dynamic_shared());
              if (reinterpret_cast<uintptr_t>(shared) % 128) hostcuda::fail("misaligned");
              if (!std::isnan(shared[threadIdx.x])) hostcuda::fail("not fresh");
              shared[threadIdx.x] = static_cast<float>(blockIdx.x);
              __syncthreads();
              if (shared[63 - threadIdx.x] != static_cast<float>(blockIdx.x)) hostcuda::fail("somebody else's");
            },
            64 * sizeof(float)) == 0);
}

TEST_CASE("hostcuda: shuffles and votes") {
  for (const Schedule schedule : hostcuda::kSchedules) {
    const With options({.schedule = schedule});
    CHECK(launch({2, 1, 1}, 96, [] {
            const unsigned t = threadIdx.x, lane = t % 32, first = t - lane;
            const auto require = [](bool right, int line) {
              if (!right) hostcuda::fail("line %d", line);
            };
            require(__shfl_xor_sync(kAll, t, 5) == first + (lane ^ 5), __LINE__);
            require(__shfl_sync(kAll, 1.5f * static_cast<float>(t), 7) == 1.5f * static_cast<float>(first + 7),
                    __LINE__);
            require(__shfl_sync(kAll, t, static_cast<int>((lane + 1) % 32)) == first + (lane + 1) % 32, __LINE__);
            require(__shfl_down_sync(kAll, double{1} * t, 3) == (lane + 3 < 32 ? t + 3 : t), __LINE__);
            require(__shfl_up_sync(kAll, uint64_t{t} << 40, 4) == uint64_t{lane >= 4 ? t - 4 : t} << 40, __LINE__);
            require(__ballot_sync(kAll, lane % 3 == 0) == 0x49249249u, __LINE__);
            require(__any_sync(kAll, t == 33) == (first == 32), __LINE__);
            require(__all_sync(kAll, t != 33) == (first != 32), __LINE__);
            require(__syncthreads_or(t == 95) == 1, __LINE__);
            require(__syncthreads_or(t == 96) == 0, __LINE__);
            require(__syncthreads_and(t < 95) == 0, __LINE__);
            require(__syncthreads_and(t < 96) == 1, __LINE__);
            require(__syncthreads_count(t < 50) == 50, __LINE__);
          }) == 0);
  }
}

TEST_CASE("hostcuda: atomics, and the last block sees what all others have written") {
  unsigned sum = 0, bits = 0, most = 0;
  for (const Schedule schedule : hostcuda::kSchedules)
    for (const unsigned workers : {1u, 2u, 4u}) {
      const With options({.schedule = schedule, .workers = workers});
      sum = bits = most = 0;
      CHECK(launch({32, 1, 1}, 64, [&] {
              atomicAdd(&sum, threadIdx.x);
              atomicOr(&bits, 1u << blockIdx.x);
              atomicMax(&most, blockIdx.x * 64 + threadIdx.x);
            }) == 0);
      CHECK(sum == 32 * 63 * 32);
      CHECK(bits == 0xffffffffu);
      CHECK(most == 32 * 64 - 1);
      const selftest::Result result = selftest::run_sum<selftest::SumBug::kNone>(20000, 37);
      CHECK(result.code == 0);
      CHECK(result.right);
    }
}

TEST_CASE("hostcuda: matrix products in every schedule, with edges") {
  for (const Schedule schedule : hostcuda::kSchedules) {
    const With options({.schedule = schedule, .workers = 2});
    for (const auto& [m, n, k] : {std::tuple{64, 64, 32}, {130, 70, 96}, {1, 65, 64}}) {
      const selftest::Result result = selftest::run_gemm<selftest::Bug::kNone>(m, n, k);
      CHECK(result.code == 0);
      CHECK(result.right);
    }
  }
}

TEST_CASE("hostcuda: launches from several OS threads at a time") {
  std::vector<std::thread> callers;
  std::atomic<int> right{0};
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&right, i] {
      for (int j = 0; j < 5; ++j) {
        const selftest::Result result = selftest::run_sum<selftest::SumBug::kNone>(1000 + 100 * i + j, 3);
        right += result.code == 0 && result.right;
      }
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(right == 20);
}
