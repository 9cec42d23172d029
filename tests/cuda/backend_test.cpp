// The host side of the CUDA backend on the harness's devices: what it refuses, how it reports failures, and that its
// calls neither allocate nor wait and leave the caller's device as it was. Numbers are compared by the tests of the C
// API.
#include <cuda_runtime_api.h>
#include <flashnce/flashnce.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "hostcuda/launch.h"
#include "hostcuda/runtime.h"
#include "support/catch.h"

namespace {

// An array in the memory of a device.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count, int device = 0, T value = T()) {
    int present = 0;
    cudaGetDevice(&present);
    cudaSetDevice(device);
    void* memory = nullptr;
    REQUIRE(cudaMalloc(&memory, count * sizeof(T)) == cudaSuccess);
    cudaSetDevice(present);
    data_ = static_cast<T*>(memory);
    for (size_t i = 0; i < count; ++i) data_[i] = value;
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* get() const { return data_; }
  T operator[](size_t i) const { return data_[i]; }

 private:
  T* data_;
};

constexpr int64_t kN = 4, kK = 40, kD = 8;

// A plan of the second device, and a call with arrays there.
struct Case {
  explicit Case(int32_t preset = FNCE_PRESET_FT) : Case(preset, 0) {}
  Case(int32_t preset, int32_t scores) {
    fnce_problem_init(&problem, sizeof problem, preset);
    problem.n = kN;
    problem.k = kK;
    problem.d = kD;
    problem.device = FNCE_CUDA;
    problem.device_index = 1;
    problem.scores = scores;
    REQUIRE(fnce_plan_create(&problem, &plan) == FNCE_OK);
    REQUIRE(fnce_plan_workspace(plan, &bytes) == FNCE_OK);
    workspace.reset(new DeviceArray<char>(bytes, 1));
    fnce_args_init(&args, sizeof args);
    args.x_q = x.get();
    args.x_k = y.get();
    args.queue = queue.get();
    args.loss = loss.get();
    args.dq = dq.get();
    for (int64_t i = 0; i < kN * kD; ++i) x.get()[i] = static_cast<float>(i % 5) - 1.5f;
    for (int64_t i = 0; i < kK * kD; ++i) queue.get()[i] = static_cast<float>(i % 7 - 3) / 8;
  }
  ~Case() { fnce_plan_destroy(plan); }

  fnce_status run(fnce_stream stream = nullptr) const {
    return fnce_loss(plan, &args, workspace->get(), bytes, stream);
  }
  bool untouched() const { return loss[0] == 7.0f && dq[0] == 7.0f; }

  fnce_problem problem = {};
  fnce_plan* plan = nullptr;
  size_t bytes = 0;
  fnce_args args = {};
  DeviceArray<float> x{kN * kD, 1}, y{kN * kD, 1, 1.0f}, queue{kK * kD, 1}, loss{1, 1, 7.0f}, dq{kN * kD, 1, 7.0f};
  std::unique_ptr<DeviceArray<char>> workspace;
};

// The case's queries into its queue.
fnce_push push_of(const Case& c, const int64_t* position_in, int64_t* position_out) {
  fnce_push push;
  fnce_push_init(&push, sizeof push);
  push.n = kN;
  push.k = kK;
  push.d = kD;
  push.device = FNCE_CUDA;
  push.device_index = 1;
  push.keys = c.x.get();
  push.queue = c.queue.get();
  push.position_in = position_in;
  push.position_out = position_out;
  return push;
}

bool says(const char* part) {
  INFO(fnce_last_error());
  CHECK(std::strstr(fnce_last_error(), part) != nullptr);
  return std::strstr(fnce_last_error(), part) != nullptr;
}

// Planted failures are not worth a message each.
struct Quiet {
  Quiet() : before(hostcuda::options()) {
    hostcuda::Options quiet = before;
    quiet.quiet = true;
    hostcuda::set_options(quiet);
  }
  ~Quiet() {
    hostcuda::set_options(before);
    hostcuda::clear_failures();
  }
  hostcuda::Options before;
};

}  // namespace

TEST_CASE("cuda backend: calls neither allocate nor wait, and give the caller's device back") {
  Case c(FNCE_PRESET_FT, FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED);
  fnce_layout layout;
  REQUIRE(fnce_partial_layout(c.plan, &layout, sizeof layout) == FNCE_OK);
  const DeviceArray<char> first(layout.bytes, 1), second(layout.bytes, 1);
  const DeviceArray<float> anchor(kN * kD, 1), pos(kN, 1), unmixed_pos(kN, 1), scaled(kN * kD, 1), one(1, 1, 1.0f);
  const DeviceArray<int64_t> position(1, 1), position_after(1, 1);
  const fnce_anchors anchors = {anchor.get(), pos.get(), unmixed_pos.get(), {}};
  void* const workspace = c.workspace->get();
  const void* const partials[] = {first.get(), second.get()};
  fnce_score_buffers out = {};
  out.pos = pos.get();
  const fnce_push push = push_of(c, position.get(), position_after.get());
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  hostcuda::reset_calls();
  CHECK(c.run() == FNCE_OK);
  CHECK(fnce_prep(c.plan, &c.args, &anchors, workspace, c.bytes, nullptr) == FNCE_OK);
  CHECK(fnce_partial(c.plan, &c.args, &anchors, first.get(), layout.bytes, workspace, c.bytes, nullptr) == FNCE_OK);
  CHECK(fnce_partial_rows(c.plan, first.get(), 0, c.plan, second.get(), layout.bytes, nullptr) == FNCE_OK);
  CHECK(fnce_merge(c.plan, partials, 2, first.get(), layout.bytes, nullptr) == FNCE_OK);
  CHECK(fnce_finish(c.plan, &c.args, second.get(), layout.bytes, workspace, c.bytes, nullptr) == FNCE_OK);
  CHECK(fnce_scores(c.plan, &c.args, &out, workspace, c.bytes, nullptr) == FNCE_OK);
  CHECK(fnce_scale(FNCE_CUDA, 1, c.dq.get(), kN, kD, one.get(), 1, FNCE_FLOAT32, scaled.get(), nullptr) == FNCE_OK);
  CHECK(fnce_queue_push(&push, nullptr) == FNCE_OK);
  CHECK(hostcuda::blocking_calls() == 0);
  int device = -1;
  CHECK((cudaGetDevice(&device) == cudaSuccess && device == 0));
  CHECK((!c.untouched() && std::isfinite(c.loss[0]) && scaled[3] == c.dq[3] && position_after[0] == kN));
}

TEST_CASE("cuda backend: a stream of another device is refused") {
  const Case c;
  for (int device = 0; device < 2; ++device) {
    cudaStream_t stream = nullptr;
    cudaSetDevice(device);
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    if (device == 0) {
      CHECK(c.run(stream) == FNCE_DEVICE_MISMATCH);
      CHECK((says("stream belongs to device 0") && says("device 1") && c.untouched()));
    } else {
      CHECK(c.run(stream) == FNCE_OK);
    }
    cudaStreamDestroy(stream);
  }
  cudaSetDevice(0);
}

TEST_CASE("cuda backend: a driver that cannot tell a stream's device is taken at its word") {
  const Case c;
  cudaStream_t stream = nullptr;
  cudaSetDevice(1);
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  hostcuda::fail_next_call("cudaStreamGetDevice", cudaErrorCallRequiresNewerDriver);
  CHECK(c.run(stream) == FNCE_OK);
  CHECK(cudaGetLastError() == cudaSuccess);
  hostcuda::fail_next_call("cudaStreamGetDevice", cudaErrorUnknown);
  CHECK(c.run(stream) == FNCE_DEVICE_ERROR);
  hostcuda::clear_failures();
  cudaStreamDestroy(stream);
  cudaSetDevice(0);
}

TEST_CASE("cuda backend: a plan made while another stream is captured leaves the capture alone") {
  const Case c;
  cudaStream_t stream = nullptr;
  cudaSetDevice(1);
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  cudaGraph_t graph = nullptr;
  for (const bool with_leave : {true, false}) {
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    fnce_plan* plan = nullptr;
    CHECK(fnce_plan_create(&c.problem, &plan) == FNCE_OK);
    fnce_plan_destroy(plan);
    // The same as any caller would ask for it.
    if (!with_leave) CHECK(hostcuda::load() == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(stream, &graph) == (with_leave ? cudaSuccess : cudaErrorStreamCaptureInvalidated));
    if (with_leave) cudaGraphDestroy(graph);
  }
  cudaStreamDestroy(stream);
  cudaSetDevice(0);
}

TEST_CASE("cuda backend: pointers are asked about on request") {
  Case c;
  c.args.checks = FNCE_CHECK_POINTERS;
  CHECK(c.run() == FNCE_OK);
  c.loss.get()[0] = c.dq.get()[0] = 7.0f;
  std::vector<float> host(kK * kD);
  const DeviceArray<float> elsewhere(kK * kD, 0);
  struct Place {
    const char* field;
    const void** pointer;
  };
  const void* temperature = nullptr;
  const Place places[] = {
      {"args.x_q", &c.args.x_q}, {"args.queue", &c.args.queue}, {"args.temperature_pointer", &temperature}};
  for (const Place& place : places) {
    const void* const good = *place.pointer;
    const auto refused = [&](const void* pointer) {
      *place.pointer = pointer;
      c.args.temperature_pointer = static_cast<const float*>(temperature);
      const fnce_status status = c.run();
      *place.pointer = good;
      c.args.temperature_pointer = nullptr;
      CHECK((says(place.field) && c.untouched()));
      return status;
    };
    CHECK(refused(host.data()) == FNCE_INVALID_ARGUMENT);
    CHECK(says("host memory; allowed: memory of device 1"));
    CHECK(refused(elsewhere.get()) == FNCE_DEVICE_MISMATCH);
    CHECK(says("memory of device 0"));
  }
  std::vector<char> workspace(c.bytes + FNCE_ALIGNMENT);
  char* const aligned =
      workspace.data() + FNCE_ALIGNMENT - reinterpret_cast<uintptr_t>(workspace.data()) % FNCE_ALIGNMENT;
  CHECK(fnce_loss(c.plan, &c.args, aligned, c.bytes, nullptr) == FNCE_INVALID_ARGUMENT);
  CHECK((says("workspace is host memory") && c.untouched()));
  const DeviceArray<char> workspace_elsewhere(c.bytes, 0);
  CHECK(fnce_loss(c.plan, &c.args, workspace_elsewhere.get(), c.bytes, nullptr) == FNCE_DEVICE_MISMATCH);
  CHECK((says("workspace is memory of device 0") && c.untouched()));
  // What the calls in steps, fnce_scores and fnce_queue_push are given beside their arguments.
  fnce_layout layout;
  REQUIRE(fnce_partial_layout(c.plan, &layout, sizeof layout) == FNCE_OK);
  const DeviceArray<float> anchor(kN * kD, 1);
  fnce_anchors anchors = {host.data(), nullptr, nullptr, {}};
  void* const good = c.workspace->get();
  CHECK(fnce_prep(c.plan, &c.args, &anchors, good, c.bytes, nullptr) == FNCE_INVALID_ARGUMENT);
  CHECK(says("anchors.anchor is host memory"));
  anchors.anchor = anchor.get();
  const DeviceArray<char> partial_elsewhere(layout.bytes, 0);
  CHECK(fnce_partial(c.plan, &c.args, &anchors, partial_elsewhere.get(), layout.bytes, good, c.bytes, nullptr) ==
        FNCE_DEVICE_MISMATCH);
  CHECK(says("partial is memory of device 0"));
  fnce_score_buffers out = {};
  out.neg_mean = host.data();
  CHECK(fnce_scores(c.plan, &c.args, &out, good, c.bytes, nullptr) == FNCE_INVALID_ARGUMENT);
  CHECK(says("out.neg_mean is host memory"));
  const DeviceArray<int64_t> positions(2, 1);
  fnce_push push = push_of(c, positions.get(), positions.get() + 1);
  push.checks = FNCE_CHECK_POINTERS;
  push.queue = host.data();
  CHECK(fnce_queue_push(&push, nullptr) == FNCE_INVALID_ARGUMENT);
  CHECK((says("push.queue is host memory") && host == std::vector<float>(kK * kD)));
  push.queue = elsewhere.get();
  CHECK(fnce_queue_push(&push, nullptr) == FNCE_DEVICE_MISMATCH);
  CHECK(says("push.queue is memory of device 0"));
  push.queue = c.queue.get();
  CHECK(fnce_queue_push(&push, nullptr) == FNCE_OK);
  // Memory that the driver has pinned can be read by the device.
  void* pinned = nullptr;
  REQUIRE(cudaMallocHost(&pinned, sizeof(float)) == cudaSuccess);
  *static_cast<float*>(pinned) = 0.07f;
  c.args.temperature_pointer = static_cast<const float*>(pinned);
  CHECK(c.run() == FNCE_OK);
  cudaFreeHost(pinned);
}

TEST_CASE("cuda backend: failures name the kernel, and the caller's next question to CUDA is about the caller") {
  const Quiet quiet;
  const Case c;
  hostcuda::fail_next_call(hostcuda::kLaunch, cudaErrorLaunchOutOfResources);
  CHECK(c.run() == FNCE_DEVICE_ERROR);
  CHECK((says("kernel fnce_prep: too many resources requested for launch") && c.untouched()));
  CHECK(cudaGetLastError() == cudaSuccess);
  hostcuda::fail_next_call(hostcuda::kLaunch, cudaErrorNoKernelImageForDevice);
  CHECK(c.run() == FNCE_UNSUPPORTED);
  CHECK((says("this library has code for the architectures") && c.untouched()));
  hostcuda::fail_next_call("cudaSetDevice", cudaErrorMemoryAllocation);
  fnce_plan* plan = nullptr;
  CHECK(fnce_plan_create(&c.problem, &plan) == FNCE_DEVICE_ERROR);
  CHECK((says("device 1: out of memory") && plan == nullptr));
  // The first kernel that is loaded, and a later one.
  hostcuda::fail_next_call("cudaFuncGetAttributes", cudaErrorMemoryAllocation);
  CHECK(fnce_plan_create(&c.problem, &plan) == FNCE_DEVICE_ERROR);
  CHECK((says("kernel fnce_prep: out of memory") && plan == nullptr));
  hostcuda::fail_next_call("cudaFuncGetAttributes", cudaErrorInvalidDeviceFunction, 3);
  CHECK(fnce_plan_create(&c.problem, &plan) == FNCE_UNSUPPORTED);
  CHECK((says("this library has code for the architectures") && plan == nullptr));
}

TEST_CASE("cuda backend: devices that are too old or not there are refused") {
  const hostcuda::DeviceProperties before = hostcuda::device_properties(1);
  hostcuda::DeviceProperties old = before;
  old.cc_major = 7;
  old.cc_minor = 0;
  hostcuda::set_device_properties(1, old);
  fnce_problem p;
  fnce_problem_init(&p, sizeof p, FNCE_PRESET_MOCO);
  p.n = p.k = p.d = 16;
  p.device = FNCE_CUDA;
  p.device_index = 1;
  fnce_plan* plan = nullptr;
  CHECK(fnce_plan_create(&p, &plan) == FNCE_UNSUPPORTED);
  CHECK(says("compute capability 7.0"));
  hostcuda::set_device_properties(1, before);
  p.device_index = 2;
  CHECK(fnce_plan_create(&p, &plan) == FNCE_NO_DEVICE);
  CHECK(says("problem.device_index is 2; this machine has 2 usable CUDA devices"));
}

TEST_CASE("cuda backend: a permutation that is none makes every row NaN, if that is checked") {
  Case c(FNCE_PRESET_MOCO);
  fnce_problem p = c.problem;
  p.lambda_neg = FNCE_LAMBDA_CALL;
  p.columns = FNCE_COLUMNS_MIXED;
  p.permutation_source = FNCE_GIVEN;
  fnce_plan* plan = nullptr;
  REQUIRE(fnce_plan_create(&p, &plan) == FNCE_OK);
  size_t bytes = 0;
  fnce_plan_workspace(plan, &bytes);
  const DeviceArray<char> workspace(bytes, 1);
  const DeviceArray<int32_t> permutation(kK, 1);
  for (int j = 0; j < kK; ++j) permutation.get()[j] = (j + 1) % static_cast<int>(kK);
  c.args.permutation = permutation.get();
  c.args.checks = FNCE_CHECK_PERMUTATION;
  CHECK(fnce_loss(plan, &c.args, workspace.get(), bytes, nullptr) == FNCE_OK);
  CHECK(std::isfinite(c.loss[0]));
  permutation.get()[3] = permutation.get()[4];
  CHECK(fnce_loss(plan, &c.args, workspace.get(), bytes, nullptr) == FNCE_OK);
  CHECK((std::isnan(c.loss[0]) && std::isnan(c.dq[5])));
  fnce_plan_destroy(plan);
}
