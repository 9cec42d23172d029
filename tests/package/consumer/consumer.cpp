// A C++ program of a user: a wrong problem gives a sentence, a right one the known loss of consumer.c.
#include <flashnce/flashnce.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

int main() {
  fnce_problem problem;
  if (fnce_problem_init(&problem, sizeof problem, FNCE_PRESET_MOCO) != FNCE_OK) return 1;
  fnce_plan* plan = nullptr;
  problem.n = -1;
  problem.k = 1;
  problem.d = 2;
  if (fnce_plan_create(&problem, &plan) != FNCE_INVALID_ARGUMENT || std::strlen(fnce_last_error()) == 0) return 2;

  problem.n = 2;
  size_t bytes = 0;
  if (fnce_run_workspace(&problem, &bytes) != FNCE_OK) return 3;
  std::vector<unsigned char> memory(bytes + FNCE_ALIGNMENT);
  unsigned char* workspace =
      memory.data() + (FNCE_ALIGNMENT - reinterpret_cast<std::uintptr_t>(memory.data()) % FNCE_ALIGNMENT);

  const float q[] = {1, 0, 1, 0};
  const float queue[] = {0, 1};
  float loss = -1;
  fnce_args args;
  if (fnce_args_init(&args, sizeof args) != FNCE_OK) return 4;
  args.x_q = q;
  args.x_k = q;
  args.queue = queue;
  args.temperature = 1;
  args.loss = &loss;
  if (fnce_run(&problem, &args, workspace, bytes, nullptr) != FNCE_OK) {
    std::fprintf(stderr, "%s\n", fnce_last_error());
    return 5;
  }
  std::printf("loss %.7f with %s\n", loss, fnce_build_info());
  return std::fabs(loss - std::log1p(std::exp(-1.0))) < 1e-6 ? 0 : 6;
}
