// Choosing a backend is a pure function of the problem and a list: tested with invented backends.
#include "core/plan.h"

#include <array>
#include <cstring>

#include "core/plan_info.h"
#include "core/status.h"
#include "support/catch.h"

namespace {

using namespace fnce;

class InventedPlan : public BackendPlan {
 public:
  InventedPlan(const Problem& problem, const char* name) : problem_(problem), name_(name) {}
  uint64_t workspace_bytes() const override { return 256; }
  fnce_plan_info info() const override {
    fnce_plan_info info = problem_info(problem_, FNCE_MIXING_BEFORE_PASS, workspace_bytes());
    info.family = FNCE_FAMILY_PLAIN;
    info.cpu_isa = FNCE_CPU_ISA_BASELINE;
    info.products = FNCE_PRODUCTS_FLOAT32;
    std::strncpy(info.device_name, name_, sizeof info.device_name - 1);
    return info;
  }
  void loss(const Call&) const override {}
  void prep(const Call&, const fnce_anchors&) const override {}
  void partial(const Call&, const fnce_anchors&, void*) const override {}
  void merge(const void* const*, int32_t, void*, fnce_stream) const override {}
  void take_rows(const void*, const Problem&, int64_t, void*, fnce_stream) const override {}
  void finish(const Call&, const void*) const override {}
  void columns_backward(const Call&, const ColumnsCall&) const override {}
  void scores(const Call&, const fnce_score_buffers&) const override {}

 private:
  const Problem problem_;
  const char* name_;
};

// Takes problems of up to max_d features on `devices` devices of a kind.
class InventedBackend : public Backend {
 public:
  InventedBackend(const char* name, int32_t device, int32_t devices, int64_t max_d)
      : name_(name), device_(device), devices_(devices), max_d_(max_d) {}
  const char* name() const override { return name_; }
  int32_t device() const override { return device_; }
  int32_t device_count() const override { return devices_; }
  bool host_memory() const override { return false; }
  std::string build_info() const override { return name_; }
  std::unique_ptr<BackendPlan> plan(const Problem& problem) const override {
    return problem.d() <= max_d_ ? std::make_unique<InventedPlan>(problem, name_) : nullptr;
  }
  void scale(const ScaleCall&, fnce_stream) const override {}
  void queue_push(const fnce_push&, fnce_stream) const override {}

 private:
  const char* name_;
  int32_t device_, devices_;
  int64_t max_d_;
};

Problem problem_on(int32_t device, int32_t index, int64_t d) {
  fnce_problem p;
  REQUIRE(fnce_problem_init(&p, sizeof p, FNCE_PRESET_FT) == FNCE_OK);
  p.n = 8;
  p.k = 64;
  p.d = d;
  p.device = device;
  p.device_index = index;
  return Problem(&p);
}

fnce_status status_of(const Problem& problem, std::span<const Backend* const> backends, const char* word) {
  try {
    make_plan(problem, backends);
    return FNCE_OK;
  } catch (const StatusError& error) {
    INFO(error.what());
    CHECK(std::strstr(error.what(), word) != nullptr);
    return error.code();
  }
}

}  // namespace

TEST_CASE("plan: the first backend of the device that accepts the problem is taken") {
  const InventedBackend fast("fast", FNCE_CUDA, 2, 512), general("general", FNCE_CUDA, 2, 1 << 20),
      host("host", FNCE_CPU, 1, 64);
  const std::array<const Backend*, 3> all = {&fast, &general, &host};
  const auto taken = [&](const Problem& problem) { return std::string(make_plan(problem, all)->info.device_name); };
  CHECK(taken(problem_on(FNCE_CUDA, 0, 128)) == "fast");
  CHECK(taken(problem_on(FNCE_CUDA, 1, 1000)) == "general");
  CHECK(taken(problem_on(FNCE_CPU, 0, 64)) == "host");
}

TEST_CASE("plan: a device that is not there, or a problem nobody takes, is said in words") {
  const InventedBackend gpu("gpu", FNCE_CUDA, 1, 512), host("host", FNCE_CPU, 1, 64);
  const std::array<const Backend*, 2> all = {&gpu, &host};
  const std::array<const Backend*, 1> only_host = {&host};
  CHECK(status_of(problem_on(FNCE_CUDA, 1, 128), all, "problem.device_index is 1") == FNCE_NO_DEVICE);
  CHECK(status_of(problem_on(FNCE_CUDA, 0, 128), only_host, "built without") == FNCE_NO_DEVICE);
  CHECK(status_of(problem_on(FNCE_CPU, 0, 65), all, "no backend") == FNCE_UNSUPPORTED);
}
