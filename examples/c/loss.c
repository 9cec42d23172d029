/* The loss of equation (7) with the feature transformation, and the gradient of the queries, for random features:
 * describe the problem, plan, allocate the workspace, call. Every status is checked. */
#include <flashnce/flashnce.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 8, K = 1024, D = 32 };

static float x_q[N * D], x_k[N * D], queue[K * D], dq[N * D];

static void check(fnce_status status, const char* call) {
  if (status == FNCE_OK) return;
  fprintf(stderr, "%s: %s: %s\n", call, fnce_status_string(status), fnce_last_error());
  exit(EXIT_FAILURE);
}

static void fill(float* values, int count) {
  for (int i = 0; i < count; i++) values[i] = (float)rand() / (float)RAND_MAX - 0.5f;
}

int main(void) {
  fill(x_q, N * D);
  fill(queue, K * D);
  for (int i = 0; i < N * D; i++) x_k[i] = x_q[i] + 0.1f * ((float)rand() / (float)RAND_MAX - 0.5f);

  /* The queue is used as it is, so its rows are normalised first: pushing them into it does that. */
  int64_t position = 0;
  fnce_push push;
  check(fnce_push_init(&push, sizeof push), "fnce_push_init");
  static float unit_queue[K * D];
  push.n = push.k = K;
  push.d = D;
  push.keys = queue;
  push.queue = unit_queue;
  push.position_in = push.position_out = &position;
  check(fnce_queue_push(&push, NULL), "fnce_queue_push");

  fnce_problem problem;
  check(fnce_problem_init(&problem, sizeof problem, FNCE_PRESET_FT), "fnce_problem_init");
  problem.n = N;
  problem.k = K;
  problem.d = D;
  fnce_plan* plan;
  check(fnce_plan_create(&problem, &plan), "fnce_plan_create");
  printf("%s\n", fnce_plan_describe(plan));

  size_t bytes;
  check(fnce_plan_workspace(plan, &bytes), "fnce_plan_workspace");
  char* memory = malloc(bytes + FNCE_ALIGNMENT);
  if (memory == NULL) return EXIT_FAILURE;
  void* workspace = memory + (FNCE_ALIGNMENT - (uintptr_t)memory % FNCE_ALIGNMENT);

  float loss;
  fnce_args args;
  check(fnce_args_init(&args, sizeof args), "fnce_args_init");
  args.x_q = x_q;
  args.x_k = x_k;
  args.queue = unit_queue;
  args.temperature = 0.2f;
  args.seed = 1; /* another one in every step */
  args.loss = &loss;
  args.dq = dq;
  check(fnce_loss(plan, &args, workspace, bytes, NULL), "fnce_loss");
  printf("loss %.6f, gradient of the first query's first feature %+.6f\n", loss, dq[0]);

  free(memory);
  fnce_plan_destroy(plan);
  return EXIT_SUCCESS;
}
