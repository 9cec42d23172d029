/* A program of a newer release than the library's: compiled against a header whose structs have a field `added`.
 *
 * usage: newer_caller older | same      the library is older than the header, or knows the field as well
 *
 * Untouched, the field is zero and all calls work; set, an older library says that it does not know it, and where. */
#include <flashnce/flashnce.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float kRows[4] = {1, 0, 1, 0};
static const float kQueue[2] = {0, 1};
static int older;

static void require(int holds, const char* what, int line) {
  if (holds) return;
  fprintf(stderr, "line %d: %s (last error: %s)\n", line, what, fnce_last_error());
  exit(1);
}
#define REQUIRE(condition) require(condition, #condition, __LINE__)

/* The status of a call with a field set that an older library does not know. */
static void refused(fnce_status status, const char* name, size_t offset) {
  char place[64];
  if (!older) {
    REQUIRE(status == FNCE_OK);
    return;
  }
  snprintf(place, sizeof place, "offset %zu;", offset);
  REQUIRE(status == FNCE_UNSUPPORTED);
  REQUIRE(strncmp(fnce_last_error(), name, strlen(name)) == 0 && strstr(fnce_last_error(), place) != NULL);
}

static int is_zero(const int64_t* added) { return added[0] == 0 && added[1] == 0; }

static void problem_and_args(void) {
  fnce_problem p;
  fnce_args a;
  fnce_layout layout;
  fnce_plan_info info;
  fnce_plan* plan = NULL;
  fnce_plan* other = NULL;
  size_t bytes;
  float loss = -1;
  memset(&p, 0xA5, sizeof p);
  REQUIRE(fnce_problem_init(&p, sizeof p, FNCE_PRESET_MOCO) == FNCE_OK && is_zero(p.added));
  p.n = 2;
  p.k = 1;
  p.d = 2;
  REQUIRE(fnce_plan_create(&p, &plan) == FNCE_OK && fnce_plan_workspace(plan, &bytes) == FNCE_OK);
  char* memory = malloc(bytes + FNCE_ALIGNMENT);
  REQUIRE(memory != NULL);
  void* workspace = memory + (FNCE_ALIGNMENT - (uintptr_t)memory % FNCE_ALIGNMENT);

  memset(&a, 0xA5, sizeof a);
  REQUIRE(fnce_args_init(&a, sizeof a) == FNCE_OK && is_zero(a.added));
  a.x_q = kRows;
  a.x_k = kRows;
  a.queue = kQueue;
  a.temperature = 1;
  a.loss = &loss;
  REQUIRE(fnce_loss(plan, &a, workspace, bytes, NULL) == FNCE_OK && fabs(loss - log(1 + exp(-1.0))) < 1e-6);

  memset(&layout, 0xA5, sizeof layout);
  REQUIRE(fnce_partial_layout(plan, &layout, sizeof layout) == FNCE_OK && is_zero(layout.added) && layout.bytes > 0);

  memset(&info, 0xA5, sizeof info);
  REQUIRE(fnce_plan_get_info(plan, &info, sizeof info) == FNCE_OK && is_zero(info.added) &&
          info.workspace_bytes == bytes);

  p.added[1] = 1;
  refused(fnce_plan_create(&p, &other), "problem ", offsetof(fnce_problem, added) + 8);
  fnce_plan_destroy(other);
  refused(fnce_run_workspace(&p, &bytes), "problem ", offsetof(fnce_problem, added) + 8);
  a.added[0] = 1;
  refused(fnce_loss(plan, &a, workspace, bytes, NULL), "args ", offsetof(fnce_args, added));
  fnce_plan_destroy(plan);
  free(memory);
}

static void push_keys(void) {
  float queue[2];
  int64_t position = 0;
  fnce_push push;
  memset(&push, 0xA5, sizeof push);
  REQUIRE(fnce_push_init(&push, sizeof push) == FNCE_OK && is_zero(push.added));
  push.n = 1;
  push.k = 1;
  push.d = 2;
  push.keys = kRows;
  push.queue = queue;
  push.position_in = push.position_out = &position;
  REQUIRE(fnce_queue_push(&push, NULL) == FNCE_OK && queue[0] == 1);
  push.added[0] = 1;
  refused(fnce_queue_push(&push, NULL), "push ", offsetof(fnce_push, added));
}

static void symmetric(void) {
  float loss = -1;
  fnce_problem problem;
  fnce_plan* plan = NULL;
  fnce_pairs pairs;
  char* memory = NULL;
  void* workspace = NULL;
  size_t bytes = 0;
  memset(&pairs, 0xA5, sizeof pairs);
  REQUIRE(fnce_pairs_init(&pairs, sizeof pairs) == FNCE_OK && is_zero(pairs.added));
  REQUIRE(fnce_problem_init(&problem, sizeof problem, FNCE_PRESET_MOCO) == FNCE_OK);
  problem.form = FNCE_FORM_SYMMETRIC;
  problem.n = 1;
  problem.d = 2;
  REQUIRE(fnce_plan_create(&problem, &plan) == FNCE_OK && fnce_plan_workspace(plan, &bytes) == FNCE_OK);
  memory = malloc(bytes + FNCE_ALIGNMENT);
  REQUIRE(memory != NULL);
  workspace = memory + (FNCE_ALIGNMENT - (uintptr_t)memory % FNCE_ALIGNMENT);
  pairs.x_a = pairs.x_b = kRows;
  pairs.loss = &loss;
  REQUIRE(fnce_symmetric(plan, &pairs, workspace, bytes, NULL) == FNCE_OK && loss == 0);
  pairs.added[1] = 1;
  refused(fnce_symmetric(plan, &pairs, workspace, bytes, NULL), "pairs ", offsetof(fnce_pairs, added) + 8);
  fnce_plan_destroy(plan);
  free(memory);
}

int main(int argc, char** argv) {
  if (argc != 2 || (strcmp(argv[1], "older") != 0 && strcmp(argv[1], "same") != 0)) {
    fprintf(stderr, "usage: newer_caller older | same\n");
    return 2;
  }
  older = strcmp(argv[1], "older") == 0;
  problem_and_args();
  push_keys();
  symmetric();
  printf("%s library: %s\n", argv[1], fnce_build_info());
  return 0;
}
