/* The public header as a C99 program sees it: it compiles alone and twice, and every function links. */
#include <flashnce/flashnce.h>

#include <stdio.h>

typedef void (*any_function)(void);

int main(void) {
  const any_function functions[] = {(any_function)fnce_version,
                                    (any_function)fnce_version_string,
                                    (any_function)fnce_status_string,
                                    (any_function)fnce_last_error,
                                    (any_function)fnce_problem_init,
                                    (any_function)fnce_args_init,
                                    (any_function)fnce_plan_create,
                                    (any_function)fnce_plan_destroy,
                                    (any_function)fnce_plan_workspace,
                                    (any_function)fnce_plan_describe,
                                    (any_function)fnce_plan_get_info,
                                    (any_function)fnce_loss,
                                    (any_function)fnce_scale,
                                    (any_function)fnce_push_init,
                                    (any_function)fnce_queue_push,
                                    (any_function)fnce_scores,
                                    (any_function)fnce_prep,
                                    (any_function)fnce_partial_layout,
                                    (any_function)fnce_partial_rows,
                                    (any_function)fnce_partial,
                                    (any_function)fnce_merge,
                                    (any_function)fnce_finish,
                                    (any_function)fnce_columns_backward,
                                    (any_function)fnce_pairs_init,
                                    (any_function)fnce_symmetric,
                                    (any_function)fnce_symmetric_backward,
                                    (any_function)fnce_run_workspace,
                                    (any_function)fnce_run,
                                    (any_function)fnce_sample_lambda_pos,
                                    (any_function)fnce_sample_lambda_neg,
                                    (any_function)fnce_permutation,
                                    (any_function)fnce_device_count,
                                    (any_function)fnce_build_info,
                                    (any_function)fnce_set_threads,
                                    (any_function)fnce_get_threads};
  const size_t count = sizeof functions / sizeof functions[0];
  size_t i;
  fnce_problem problem;
  fnce_plan* plan = NULL;
  for (i = 0; i < count; ++i)
    if (functions[i] == NULL) return 1;
  /* The minimal program of the header's first page, up to its plan. */
  if (fnce_problem_init(&problem, sizeof problem, FNCE_PRESET_FT) != FNCE_OK) return 2;
  problem.n = 2;
  problem.k = 32;
  problem.d = 8;
  if (fnce_plan_create(&problem, &plan) != FNCE_OK) {
    fprintf(stderr, "%s\n", fnce_last_error());
    return 3;
  }
  fnce_plan_destroy(plan);
  if (fnce_version() != FNCE_VERSION) return 4;
  printf("%u functions of FlashNCE %s link from C99\n", (unsigned)count, fnce_version_string());
  return 0;
}
