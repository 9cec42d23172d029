// The two ends of a call on the CPU: prep makes the anchors of the rows, finish adds the positives and writes what was
// asked for. Between them, and between processes, lie only anchors and partials.
#pragma once
#include "core/args.h"
#include "core/layout.h"
#include "core/problem.h"
#include "cpu/kernels.h"
#include "cpu/schedule.h"
#include "cpu/workspace.h"

namespace fnce::cpu {

// What the steps of a call share.
struct CpuCall {
  const Problem& problem;
  const Args& args;
  const Kernels& kernels;
  const TileKernels& tiles;
  const Tiling& tiling;
  const Schedule& schedule;
  const Workspace& workspace;
  int threads;

  // score_scale of the call's temperature.
  float scale() const;
};

// What a call does with its rows; fnce_scores looks at them without mixing.
enum class RowMixing { kAsProblem, kNone };

// Equations (1), (2), (4), (6). anchors.pos and unmixed_pos, which ranks compare with, may be null. `pos`, if it is
// not: [N], the positives as they are reported, not rounded to the queue's type.
void prep_rows(const CpuCall& call, RowMixing mixing, const fnce_anchors& anchors, float* pos = nullptr);

// The batch columns as they are multiplied, equation (13), into the workspace.
void prep_batch(const CpuCall& call);

// What says how features of this call are normalised, without a row or mixing.
RowInput features_alone(const CpuCall& call);

// Equations (7), (8), (9) from the merged negatives.
void finish_rows(const CpuCall& call, const PartialView& partial);

// The statistics alone: fnce_scores.
void finish_scores(const CpuCall& call, const PartialView& partial, const float* pos, const fnce_score_buffers& out);

}  // namespace fnce::cpu
