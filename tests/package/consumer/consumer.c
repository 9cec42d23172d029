/* A C program of a user: the loss of two queries against one negative, whose value is known. With q = k = (1, 0), the
 * negative orthogonal to them and temperature 1, equation (7) gives log(1 + exp(-1)) for each row. */
#include <flashnce/flashnce.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void check(fnce_status status, const char* call) {
  if (status != FNCE_OK) {
    fprintf(stderr, "%s: %s: %s\n", call, fnce_status_string(status), fnce_last_error());
    exit(1);
  }
}

int main(void) {
  const float q[2][2] = {{1, 0}, {1, 0}}, queue[1][2] = {{0, 1}};
  const double expected = log(1.0 + exp(-1.0));
  float loss = -1;
  fnce_problem problem;
  fnce_args args;
  fnce_plan* plan;
  size_t bytes;
  char* memory;
  char* workspace;

  if (fnce_version() != FNCE_VERSION) {
    fprintf(stderr, "header %d, library %s\n", FNCE_VERSION, fnce_version_string());
    return 1;
  }
  check(fnce_problem_init(&problem, sizeof problem, FNCE_PRESET_MOCO), "fnce_problem_init");
  problem.n = 2;
  problem.k = 1;
  problem.d = 2;
  check(fnce_plan_create(&problem, &plan), "fnce_plan_create");
  check(fnce_plan_workspace(plan, &bytes), "fnce_plan_workspace");
  memory = malloc(bytes + FNCE_ALIGNMENT);
  workspace = memory + (FNCE_ALIGNMENT - (uintptr_t)memory % FNCE_ALIGNMENT);
  check(fnce_args_init(&args, sizeof args), "fnce_args_init");
  args.x_q = q;
  args.x_k = q;
  args.queue = queue;
  args.temperature = 1;
  args.loss = &loss;
  check(fnce_loss(plan, &args, workspace, bytes, NULL), "fnce_loss");
  fnce_plan_destroy(plan);
  free(memory);
  printf("loss %.7f, expected %.7f\n", loss, expected);
  return fabs(loss - expected) < 1e-6 ? 0 : 1;
}
