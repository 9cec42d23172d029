/* A program of the first release: compiled against the header beside it, run with the library of today and of tomorrow.
 * It uses every struct and nearly every function, knows all results, and watches the bytes behind its structs: a newer
 * library must not write where a newer struct would have grown.
 *
 * Two queries q = k = (1, 0) against two negatives orthogonal to them, temperature 1: every score of a negative is 0,
 * the positive's is 1, and equation (7) gives log(1 + 2 exp(-1)). */
#include <flashnce/flashnce.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 2, K = 2, D = 2, GUARD = 256 };

/* clang-format off */
#define GUARDED(type, name) struct { type value; unsigned char guard[GUARD]; } name
/* clang-format on */

static const float kRows[N * D] = {1, 0, 1, 0};
static const float kQueue[K * D] = {0, 1, 0, -1};

static void* allocated[32];
static int allocations;

static void require(int holds, const char* what, int line) {
  if (holds) return;
  fprintf(stderr, "line %d: %s (last error: %s)\n", line, what, fnce_last_error());
  exit(1);
}
#define REQUIRE(condition) require(condition, #condition, __LINE__)
#define OK(call) require((call) == FNCE_OK, #call, __LINE__)

static int near(double value, double expected) { return fabs(value - expected) <= 1e-6 * (1 + fabs(expected)); }

static int untouched(const unsigned char* guard) {
  for (int i = 0; i < GUARD; ++i)
    if (guard[i] != 0xA5) return 0;
  return 1;
}

/* Memory at a multiple of FNCE_ALIGNMENT, freed by main. */
static char* aligned(size_t bytes) {
  char* memory = malloc(bytes + FNCE_ALIGNMENT);
  REQUIRE(memory != NULL && allocations < 32);
  allocated[allocations++] = memory;
  return memory + (FNCE_ALIGNMENT - (uintptr_t)memory % FNCE_ALIGNMENT);
}

static fnce_problem problem_of(int32_t preset, int64_t k) {
  GUARDED(fnce_problem, p);
  memset(&p, 0xA5, sizeof p);
  OK(fnce_problem_init(&p.value, sizeof p.value, preset));
  REQUIRE(untouched(p.guard) && p.value.struct_size == sizeof(fnce_problem));
  p.value.n = N;
  p.value.k = k;
  p.value.d = D;
  return p.value;
}

static fnce_args new_args(void) {
  GUARDED(fnce_args, a);
  memset(&a, 0xA5, sizeof a);
  OK(fnce_args_init(&a.value, sizeof a.value));
  REQUIRE(untouched(a.guard) && a.value.struct_size == sizeof(fnce_args) && a.value.x_q == NULL);
  a.value.x_q = kRows;
  a.value.x_k = kRows;
  a.value.queue = kQueue;
  a.value.temperature = 1;
  return a.value;
}

static void versions(void) {
  REQUIRE(fnce_version() >= FNCE_VERSION && strlen(fnce_version_string()) > 0 && strlen(fnce_build_info()) > 0);
  REQUIRE(strcmp(fnce_status_string(FNCE_NO_DEVICE), "FNCE_NO_DEVICE") == 0);
  int32_t cpus = 0, gpus = -1;
  OK(fnce_device_count(FNCE_CPU, &cpus));
  OK(fnce_device_count(FNCE_CUDA, &gpus));
  REQUIRE(cpus == 1 && gpus >= 0);
  OK(fnce_set_threads(2));
  REQUIRE(fnce_get_threads() == 2);
}

static void refusals(void) {
  fnce_problem p = problem_of(FNCE_PRESET_MOCO, K);
  fnce_plan* plan = NULL;
  p.n = -1;
  REQUIRE(fnce_plan_create(&p, &plan) == FNCE_INVALID_ARGUMENT && plan == NULL);
  REQUIRE(strstr(fnce_last_error(), "problem.n") != NULL);
}

/* fnce_loss with all outputs, fnce_scale on its gradient, fnce_scores. */
static void loss_in_one_call(double expected) {
  fnce_problem p = problem_of(FNCE_PRESET_MOCO, K);
  fnce_args a = new_args();
  fnce_plan* plan;
  size_t bytes;
  float loss, dq[N * D], dk[N * D], scaled[N * D], dtemperature, pos[N], entropy[N], mean[N], dq_norm[N];
  int64_t count[N], greater[N];
  const float upstream = 2;
  p.scores = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
  OK(fnce_plan_create(&p, &plan));
  OK(fnce_plan_workspace(plan, &bytes));
  REQUIRE(strlen(fnce_plan_describe(plan)) > 0);
  void* workspace = aligned(bytes);
  a.loss = &loss;
  a.dq = dq;
  a.dk = dk;
  a.dtemperature = &dtemperature;
  a.mixed.pos = pos;
  a.mixed.entropy = entropy;
  a.mixed.dq_norm = dq_norm;
  a.unmixed.neg_count = count;
  a.unmixed.neg_mean = mean;
  a.unmixed.n_greater_equal = greater;
  OK(fnce_loss(plan, &a, workspace, bytes, NULL));
  REQUIRE(near(loss, expected));
  /* The loss falls with q's part along k only by its length, which normalisation takes out. */
  REQUIRE(near(dq[0], 0) && near(dk[1], 0));
  REQUIRE(near(pos[0], 1) && count[1] == K && near(mean[0], 0) && greater[0] == 0);
  const double positive = exp(-expected), negative = (1 - positive) / 2;
  REQUIRE(near(entropy[1], -positive * log(positive) - 2 * negative * log(negative)));
  REQUIRE(near(dq_norm[0], hypot(dq[0], dq[1])) && near(dtemperature, 1 - positive));

  OK(fnce_scale(FNCE_CPU, 0, a.dk, N, D, &upstream, 1, FNCE_FLOAT32, scaled, NULL));
  for (int i = 0; i < N * D; ++i) REQUIRE(scaled[i] == 2 * dk[i]);

  GUARDED(fnce_score_buffers, out);
  memset(&out, 0, sizeof out);
  out.value.n_greater = greater;
  out.value.pos = pos;
  pos[1] = -1;
  OK(fnce_scores(plan, &a, &out.value, workspace, bytes, NULL));
  REQUIRE(near(pos[1], 1) && greater[1] == 0);
  fnce_plan_destroy(plan);
}

/* The negatives in two shards, each a partial; their merge finishes to the same loss. */
static void loss_in_steps(double expected) {
  fnce_args a = new_args();
  fnce_problem p = problem_of(FNCE_PRESET_MOCO, K);
  p.scores = FNCE_SCORES_MIXED;
  fnce_plan* whole;
  OK(fnce_plan_create(&p, &whole));
  size_t bytes;
  OK(fnce_plan_workspace(whole, &bytes));
  void* workspace = aligned(bytes);

  GUARDED(fnce_layout, layout);
  memset(&layout, 0xA5, sizeof layout);
  OK(fnce_partial_layout(whole, &layout.value, sizeof layout.value));
  REQUIRE(untouched(layout.guard) && layout.value.struct_size == sizeof(fnce_layout));

  float anchor[N * D], pos[N];
  fnce_anchors anchors = {anchor, pos, NULL, {NULL, NULL}};
  OK(fnce_prep(whole, &a, &anchors, workspace, bytes, NULL));
  REQUIRE(near(anchor[0], 1) && near(anchor[1], 0) && near(pos[1], 1));

  void* partials[2];
  const size_t partial_bytes = (size_t)layout.value.bytes;
  for (int shard = 0; shard < 2; ++shard) {
    fnce_problem part = p;
    part.k = 1;
    part.k_global = K;
    part.column_offset = shard;
    fnce_plan* plan;
    size_t part_bytes;
    OK(fnce_plan_create(&part, &plan));
    OK(fnce_plan_workspace(plan, &part_bytes));
    partials[shard] = aligned(partial_bytes);
    a.queue = kQueue + shard * D;
    OK(fnce_partial(plan, &a, &anchors, partials[shard], partial_bytes, aligned(part_bytes), part_bytes, NULL));
    fnce_plan_destroy(plan);
  }
  char* merged = aligned(partial_bytes);
  OK(fnce_merge(whole, (const void* const*)partials, 2, merged, partial_bytes, NULL));
  char* rows = aligned(partial_bytes);
  OK(fnce_partial_rows(whole, merged, 0, whole, rows, partial_bytes, NULL));
  const float* m = (const float*)(rows + layout.value.m);
  const float* l = (const float*)(rows + layout.value.l);
  const int64_t* count = (const int64_t*)(rows + layout.value.count[0]);
  for (int i = 0; i < N; ++i) REQUIRE(near(l[i] * exp(m[i]), 2) && count[i] == K);

  float loss;
  a.loss = &loss;
  OK(fnce_finish(whole, &a, rows, partial_bytes, workspace, bytes, NULL));
  REQUIRE(near(loss, expected));
  fnce_plan_destroy(whole);
}

static void stateless(double expected) {
  fnce_problem p = problem_of(FNCE_PRESET_MOCO, K);
  fnce_args a = new_args();
  float loss;
  size_t bytes;
  OK(fnce_run_workspace(&p, &bytes));
  a.loss = &loss;
  OK(fnce_run(&p, &a, aligned(bytes), bytes, NULL));
  REQUIRE(near(loss, expected));
}

/* What a seed draws is the same for ever; these are the values of tests/math/reference_draws.py. */
static void draws(void) {
  const int32_t expected[8] = {6, 7, 5, 4, 3, 2, 0, 1};
  fnce_problem p = problem_of(FNCE_PRESET_FT, 8);
  fnce_args a = new_args();
  float pos, neg;
  int32_t permutation[8];
  a.seed = 1;
  a.offset = 4;
  OK(fnce_sample_lambda_pos(&p, &a, &pos, 1));
  OK(fnce_sample_lambda_neg(&p, &a, &neg, 1));
  OK(fnce_permutation(&p, &a, permutation, 8));
  REQUIRE(pos == 1.37785387f && neg == 0.821144938f);
  REQUIRE(memcmp(permutation, expected, sizeof expected) == 0);
}

static void push_keys(void) {
  const float keys[3 * D] = {2, 0, 0, 3, -4, 0};
  float queue[K * D];
  int64_t position = 1;
  GUARDED(fnce_push, push);
  memset(&push, 0xA5, sizeof push);
  OK(fnce_push_init(&push.value, sizeof push.value));
  REQUIRE(untouched(push.guard) && push.value.struct_size == sizeof(fnce_push));
  push.value.n = 3;
  push.value.k = K;
  push.value.d = D;
  push.value.keys = keys;
  push.value.queue = queue;
  push.value.position_in = &position;
  push.value.position_out = &position;
  OK(fnce_queue_push(&push.value, NULL));
  /* Three keys from row 1 on in a ring of two: the second lies in row 0, the third in row 1. */
  REQUIRE(position == 0 && near(queue[0], 0) && near(queue[1], 1) && near(queue[2], -1) && near(queue[3], 0));
}

int main(void) {
  const double expected = log(1 + 2 * exp(-1.0));
  versions();
  refusals();
  loss_in_one_call(expected);
  loss_in_steps(expected);
  stateless(expected);
  draws();
  push_keys();
  while (allocations > 0) free(allocated[--allocations]);
  printf("compiled for %d, runs with %s\n", FNCE_VERSION, fnce_version_string());
  return 0;
}
