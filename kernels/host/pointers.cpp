#include "kernels/host/pointers.h"

#include <cuda_runtime_api.h>

#include "core/status.h"
#include "kernels/host/device.h"

namespace fnce::cuda {
namespace {

void add_buffers(std::vector<GivenPointer>& list, const std::string& name, const fnce_score_buffers& b) {
  const GivenPointer buffers[] = {{".pos", b.pos},
                                  {".neg_count", b.neg_count},
                                  {".neg_mean", b.neg_mean},
                                  {".neg_variance", b.neg_variance},
                                  {".neg_min", b.neg_min},
                                  {".neg_max", b.neg_max},
                                  {".neg_log_mean_exp", b.neg_log_mean_exp},
                                  {".n_greater", b.n_greater},
                                  {".n_greater_equal", b.n_greater_equal},
                                  {".entropy", b.entropy},
                                  {".dq_norm", b.dq_norm}};
  for (const GivenPointer& buffer : buffers) list.push_back({name + buffer.field, buffer.pointer});
}

bool reads_pageable_memory(int32_t device) {
  int value = 0;
  check_runtime(cudaDeviceGetAttribute(&value, cudaDevAttrPageableMemoryAccess, device),
                "a question about pageable memory");
  return value != 0;
}

}  // namespace

std::vector<GivenPointer> pointers_of(const Args& args, const OtherPointers& others) {
  const fnce_args& a = args.raw();
  std::vector<GivenPointer> list = {{"args.x_q", a.x_q},
                                    {"args.x_k", a.x_k},
                                    {"args.queue", a.queue},
                                    {"args.weight", a.weight},
                                    {"args.lambda_pos", a.lambda_pos},
                                    {"args.lambda_neg", a.lambda_neg},
                                    {"args.permutation", a.permutation},
                                    {"args.temperature_pointer", a.temperature_pointer},
                                    {"args.alpha_pos_pointer", a.alpha_pos_pointer},
                                    {"args.shift_pos_pointer", a.shift_pos_pointer},
                                    {"args.alpha_neg_pointer", a.alpha_neg_pointer},
                                    {"args.shift_neg_pointer", a.shift_neg_pointer},
                                    {"args.seed_pointer", a.seed_pointer},
                                    {"args.offset_pointer", a.offset_pointer},
                                    {"args.loss", a.loss},
                                    {"args.dq", a.dq},
                                    {"args.dk", a.dk},
                                    {"args.dtemperature_rows", a.dtemperature_rows},
                                    {"args.dtemperature", a.dtemperature},
                                    {"args.x_c", a.x_c},
                                    {"args.query_ids", a.query_ids},
                                    {"args.column_ids", a.column_ids},
                                    {"args.batch_ids", a.batch_ids},
                                    {"args.column_bias", a.column_bias},
                                    {"args.batch_bias", a.batch_bias},
                                    {"args.log_sum_exp", a.log_sum_exp},
                                    {"workspace", others.workspace},
                                    {"partial", others.partial}};
  add_buffers(list, "args.mixed", a.mixed);
  add_buffers(list, "args.unmixed", a.unmixed);
  if (others.out) add_buffers(list, "out", *others.out);
  if (others.anchors) {
    list.push_back({"anchors.anchor", others.anchors->anchor});
    list.push_back({"anchors.pos", others.anchors->pos});
    list.push_back({"anchors.unmixed_pos", others.anchors->unmixed_pos});
  }
  if (others.columns) {
    list.push_back({"log_sum_exp", others.columns->log_sum_exp});
    list.push_back({"upstream", others.columns->upstream});
    list.push_back({"dx_c", others.columns->dx_c});
  }
  return list;
}

std::vector<GivenPointer> pointers_of(const fnce_push& push) {
  return {{"push.keys", push.keys},
          {"push.queue", push.queue},
          {"push.position_in", push.position_in},
          {"push.position_out", push.position_out}};
}

void check_pointers(const std::vector<GivenPointer>& pointers, int32_t device) {
  const bool pageable = reads_pageable_memory(device);
  const std::string allowed = "memory of device " + to_text(int64_t{device}) + ", or host memory that it can read";
  for (const GivenPointer& given : pointers) {
    if (given.pointer == nullptr) continue;
    cudaPointerAttributes found = {};
    check_runtime(cudaPointerGetAttributes(&found, given.pointer), given.field.c_str());
    if (found.type == cudaMemoryTypeDevice && found.device != device)
      throw StatusError(FNCE_DEVICE_MISMATCH, given.field + " is memory of device " + to_text(int64_t{found.device}) +
                                                  "; allowed: " + allowed);
    const bool readable = found.type == cudaMemoryTypeUnregistered ? pageable : found.devicePointer == given.pointer;
    if (!readable) invalid(given.field, "host memory", allowed);
  }
}

}  // namespace fnce::cuda
