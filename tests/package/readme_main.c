/* Runs the C example of README.md, a function `step`, on data of the sizes that it names: the loss is a finite positive
 * number and the gradient is there. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

float step(const float* x_q, const float* x_k, const float* queue, float* dq, uint64_t seed);

enum { kN = 256, kK = 65536, kD = 128 };

/* Rows of length about 1: uniform numbers of variance 1 / D. */
static float* rows(size_t count, uint32_t state) {
  const size_t size = count * kD;
  const float width = 2 * sqrtf(3.0f / kD);
  float* x = malloc(size * sizeof *x);
  for (size_t i = 0; x && i < size; ++i) {
    state = state * 1664525u + 1013904223u;
    x[i] = width * ((float)(state >> 8) / 16777216.0f - 0.5f);
  }
  return x;
}

int main(void) {
  float *q = rows(kN, 1), *k = rows(kN, 2), *queue = rows(kK, 3), *dq = calloc((size_t)kN * kD, sizeof *dq);
  double norm = 0;
  if (!q || !k || !queue || !dq) return 2;
  const float loss = step(q, k, queue, dq, 7);
  for (size_t i = 0; i < (size_t)kN * kD; ++i) norm += (double)dq[i] * dq[i];
  printf("loss %g, |dq| %g\n", loss, sqrt(norm));
  free(q);
  free(k);
  free(queue);
  free(dq);
  return isfinite(loss) && loss > 0 && isfinite(norm) && norm > 0 ? 0 : 1;
}
