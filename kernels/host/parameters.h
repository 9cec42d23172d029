// What the kernels of a call are told: their parameters from problem, arguments and workspace. No CUDA header is
// needed.
#pragma once
#include "core/args.h"
#include "core/backend.h"
#include "core/problem.h"
#include "kernels/host/plan.h"
#include "kernels/host/workspace.h"

namespace fnce::cuda {

// A call with the plan and the workspace that it runs with: what its launches are told follows from this.
struct CudaCall {
  const Problem& problem;
  const CudaChoice& choice;
  const Args& args;
  const Workspace& workspace;
};

// What a pass of a call computes beside m and l.
struct CudaPass {
  bool mixing;         // as the problem says; false: the queue as it is (fnce_scores)
  bool sums;           // O
  bool statistics[2];  // mixed, unmixed

  int32_t scores() const { return (statistics[0] ? FNCE_SCORES_MIXED : 0) | (statistics[1] ? FNCE_SCORES_UNMIXED : 0); }
};

Number<float> temperature_of(const Args& args);
RowsIn rows_in(const CudaCall& call, bool mixing);
// Everything that the pass needs of the rows, and the tables of the negatives.
PrepParams prep_params(const CudaCall& call, const MainLaunch& launch, const CudaPass& pass);
// Anchors alone, for fnce_prep.
PrepParams prep_params(const CudaCall& call, const fnce_anchors& anchors);
PackParams pack_params(const CudaCall& call, const MainLaunch& launch, const CudaPass& pass,
                       const fnce_anchors& anchors);
PremixParams premix_params(const CudaCall& call);
// Batch columns as rows of a queue.
PushParams batch_params(const CudaCall& call);
// Says whether the rows of all segments can be copied in pieces of 16 bytes.
void set_wide(MainParams& params);
MainParams main_params(const CudaCall& call, const MainLaunch& launch, const CudaPass& pass, const float* anchor);
// What main_params() lets a pass write, for whoever merges it.
SplitPartials split_partials_of(const CudaCall& call, const MainLaunch& launch, const CudaPass& pass);
// A partial as that of the only split, in natural logarithms.
SplitPartials split_partials_of(const Problem& problem, const void* partial);
FinishParams finish_params(const CudaCall& call, const SplitPartials& from);

}  // namespace fnce::cuda
