// The loss as foreign functions of XLA, which flashnce.jax registers: a handler for each kind of device, over fnce_run.
//
// A handler computes nothing. It reads sizes and types off the buffers, structure off one attribute, and points
// fnce_args at the rest. The library is the one that Python has loaded, so that FLASHNCE_LIBRARY counts here too: it is
// looked up by flashnce_jax_bind and not linked.
#include <dlfcn.h>
#include <flashnce/flashnce.h>

#include <cfenv>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include <xla/ffi/api/ffi.h>

#define FNCE_JAX_EXPORT __attribute__((visibility("default")))

namespace {

namespace ffi = xla::ffi;
using Result = ffi::Result<ffi::AnyBuffer>;

// The functions of the library that handlers call.
struct Library {
  decltype(&fnce_problem_init) problem_init = nullptr;
  decltype(&fnce_args_init) args_init = nullptr;
  decltype(&fnce_run_workspace) run_workspace = nullptr;
  decltype(&fnce_run) run = nullptr;
  decltype(&fnce_last_error) last_error = nullptr;
  decltype(&fnce_get_threads) get_threads = nullptr;
};

Library library;

// What the attribute `structure` holds, in the order of Structure in python/flashnce/jax/_ffi.py.
enum Field : size_t {
  kNormalize,
  kLambdaPos,
  kLambdaPosGiven,
  kRenormalizePos,
  kLambdaNeg,
  kLambdaNegGiven,
  kRenormalizeNeg,
  kPermutationGiven,
  kColumns,
  kAnchor,
  kReduction,
  kScores,
  kRowOffset,
  kThreads,
  kFields
};

struct Inputs {
  ffi::AnyBuffer q, k, negatives;         // [N,D], [N,D], [K,D]
  ffi::AnyBuffer numbers;                 // float32 [5]: temperature, alpha and shift of either side
  ffi::AnyBuffer draws;                   // uint32 [4]: seed and offset, low word first
  ffi::AnyBuffer weight;                  // float32; this and the next three hold nothing where they are not given
  ffi::AnyBuffer lambda_pos, lambda_neg;  // float32
  ffi::AnyBuffer permutation;             // int32
};

struct Outputs {
  Result loss, dq, dk, dtemperature;  // float32; a gradient without elements is not computed
  Result float_scores;                // float32 [rows,N], in the order of fnce_score_buffers
  Result int_scores;                  // uint32 [rows,N,2]: int64, which JAX has by option only
};

struct Device {
  int32_t kind, index;
  fnce_stream stream;
};

ffi::Error error_of(fnce_status status) {
  std::string sentence = library.last_error();
  // A caller knows arguments, not the structs that carry them.
  for (std::string_view word : {"args.*", "args.", "problem.", "_pointer"})
    for (size_t at; (at = sentence.find(word)) != std::string::npos;) sentence.erase(at, word.size());
  switch (status) {
    case FNCE_INVALID_ARGUMENT: return ffi::Error(ffi::ErrorCode::kInvalidArgument, sentence);
    case FNCE_UNSUPPORTED: return ffi::Error(ffi::ErrorCode::kUnimplemented, sentence);
    case FNCE_NO_DEVICE: return ffi::Error(ffi::ErrorCode::kFailedPrecondition, sentence);
    case FNCE_OUT_OF_MEMORY: return ffi::Error(ffi::ErrorCode::kResourceExhausted, sentence);
    default: return ffi::Error(ffi::ErrorCode::kInternal, sentence);
  }
}

// FNCE_FLOAT32, FNCE_FLOAT16 or FNCE_BFLOAT16, as flashnce.jax has checked.
int32_t type_of(const ffi::AnyBuffer& buffer) {
  switch (buffer.element_type()) {
    case ffi::F16: return FNCE_FLOAT16;
    case ffi::BF16: return FNCE_BFLOAT16;
    default: return FNCE_FLOAT32;
  }
}

template <typename T>
T* elements_of(const ffi::AnyBuffer& buffer) {
  return buffer.element_count() > 0 ? static_cast<T*>(buffer.untyped_data()) : nullptr;
}

template <typename T>
T* elements_of(Result& buffer) {
  return elements_of<T>(*buffer);
}

fnce_status problem_of(const Device& device, const Inputs& in, ffi::Span<const int64_t> structure, fnce_problem& p) {
  if (const fnce_status status = library.problem_init(&p, sizeof p, FNCE_PRESET_MOCO)) return status;
  p.n = in.q.dimensions()[0], p.d = in.q.dimensions()[1], p.k = in.negatives.dimensions()[0];
  p.device = device.kind, p.device_index = device.index;
  p.feature_type = type_of(in.q), p.queue_type = type_of(in.negatives);
  const auto field = [&](Field which) { return static_cast<int32_t>(structure[which]); };
  p.normalize = field(kNormalize);
  p.lambda_pos = field(kLambdaPos), p.lambda_pos_source = field(kLambdaPosGiven);
  p.renormalize_pos = field(kRenormalizePos);
  p.lambda_neg = field(kLambdaNeg), p.lambda_neg_source = field(kLambdaNegGiven);
  p.renormalize_neg = field(kRenormalizeNeg);
  p.permutation_source = field(kPermutationGiven);
  p.columns = field(kColumns), p.anchor = field(kAnchor), p.reduction = field(kReduction), p.scores = field(kScores);
  p.row_offset = structure[kRowOffset];
  // A number that is said, so that the size of the workspace stays right when the process's default changes meanwhile.
  p.threads = device.kind != FNCE_CPU ? 0 : field(kThreads) > 0 ? field(kThreads) : library.get_threads();
  return FNCE_OK;
}

fnce_status point_inputs(const Inputs& in, const fnce_problem& problem, fnce_args& a) {
  if (const fnce_status status = library.args_init(&a, sizeof a)) return status;
  a.x_q = elements_of<void>(in.q), a.x_k = elements_of<void>(in.k), a.queue = elements_of<void>(in.negatives);
  a.weight = elements_of<float>(in.weight);
  if (problem.lambda_pos_source == FNCE_GIVEN) a.lambda_pos = elements_of<float>(in.lambda_pos);
  if (problem.lambda_neg_source == FNCE_GIVEN) a.lambda_neg = elements_of<float>(in.lambda_neg);
  if (problem.permutation_source == FNCE_GIVEN) {
    a.permutation = elements_of<int32_t>(in.permutation);
    a.checks = FNCE_CHECK_PERMUTATION;
  }
  const float* const numbers = elements_of<float>(in.numbers);
  a.temperature_pointer = numbers;
  a.alpha_pos_pointer = numbers + 1, a.shift_pos_pointer = numbers + 2;
  a.alpha_neg_pointer = numbers + 3, a.shift_neg_pointer = numbers + 4;
  const uint64_t* const draws = elements_of<uint64_t>(in.draws);
  a.seed_pointer = draws, a.offset_pointer = draws + 1;
  return FNCE_OK;
}

// Points a struct of statistics at the next rows of both packed arrays.
void point_scores(int64_t n, bool of_loss, float*& floats, int64_t*& integers, fnce_score_buffers& to) {
  for (float** row : {&to.pos, &to.neg_mean, &to.neg_variance, &to.neg_min, &to.neg_max, &to.neg_log_mean_exp}) {
    *row = floats;
    floats += n;
  }
  if (of_loss) {
    to.entropy = floats, to.dq_norm = floats + n;
    floats += 2 * n;
  }
  for (int64_t** row : {&to.neg_count, &to.n_greater, &to.n_greater_equal}) {
    *row = integers;
    integers += n;
  }
}

void point_outputs(Outputs& out, const fnce_problem& problem, fnce_args& a) {
  a.loss = elements_of<float>(out.loss);
  a.dq = elements_of<void>(out.dq), a.dk = elements_of<void>(out.dk);
  (problem.reduction == FNCE_REDUCTION_NONE ? a.dtemperature_rows : a.dtemperature) =
      elements_of<float>(out.dtemperature);
  float* floats = elements_of<float>(out.float_scores);
  int64_t* integers = elements_of<int64_t>(out.int_scores);
  if (problem.scores & FNCE_SCORES_MIXED) point_scores(problem.n, true, floats, integers, a.mixed);
  if (problem.scores & FNCE_SCORES_UNMIXED) point_scores(problem.n, false, floats, integers, a.unmixed);
}

// XLA's threads flush denormals to zero, those of the library's pool do not: all lanes of a call must round alike.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() {
    std::fegetenv(&previous_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatEnvironment() { std::fesetenv(&previous_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  std::fenv_t previous_;
};

// `allocate` gives memory of the device, aligned to FNCE_ALIGNMENT, or NULL.
template <typename Allocate>
ffi::Error run(const Device& device, const Inputs& in, Outputs out, ffi::Span<const int64_t> structure,
               Allocate allocate) {
  if (library.run == nullptr) return ffi::Error(ffi::ErrorCode::kFailedPrecondition, "flashnce.jax is not imported");
  if (structure.size() != kFields)
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, "libflashnce_jax.so is of another version than flashnce.jax");
  fnce_problem problem;
  fnce_args args;
  if (const fnce_status status = problem_of(device, in, structure, problem)) return error_of(status);
  if (const fnce_status status = point_inputs(in, problem, args)) return error_of(status);
  point_outputs(out, problem, args);
  size_t bytes = 0;
  if (const fnce_status status = library.run_workspace(&problem, &bytes)) return error_of(status);
  void* const workspace = bytes > 0 ? allocate(bytes) : nullptr;
  if (bytes > 0 && workspace == nullptr)
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      "no memory for a workspace of " + std::to_string(bytes) + " bytes");
  if (const fnce_status status = library.run(&problem, &args, workspace, bytes, device.stream)) return error_of(status);
  return ffi::Error::Success();
}

ffi::Error run_on_cpu(ffi::AnyBuffer q, ffi::AnyBuffer k, ffi::AnyBuffer negatives, ffi::AnyBuffer numbers,
                      ffi::AnyBuffer draws, ffi::AnyBuffer weight, ffi::AnyBuffer lambda_pos, ffi::AnyBuffer lambda_neg,
                      ffi::AnyBuffer permutation, Result loss, Result dq, Result dk, Result dtemperature,
                      Result float_scores, Result int_scores, ffi::Span<const int64_t> structure) {
  const DefaultFloatEnvironment environment;
  // XLA has no allocator for handlers on a CPU.
  std::unique_ptr<void, decltype(&std::free)> workspace(nullptr, &std::free);
  return run({FNCE_CPU, 0, nullptr}, {q, k, negatives, numbers, draws, weight, lambda_pos, lambda_neg, permutation},
             {loss, dq, dk, dtemperature, float_scores, int_scores}, structure, [&](size_t bytes) {
               const size_t rounded = (bytes + FNCE_ALIGNMENT - 1) / FNCE_ALIGNMENT * FNCE_ALIGNMENT;
               workspace.reset(std::aligned_alloc(FNCE_ALIGNMENT, rounded));
               return workspace.get();
             });
}

ffi::Error run_on_cuda(fnce_stream stream, int32_t device, ffi::ScratchAllocator scratch, ffi::AnyBuffer q,
                       ffi::AnyBuffer k, ffi::AnyBuffer negatives, ffi::AnyBuffer numbers, ffi::AnyBuffer draws,
                       ffi::AnyBuffer weight, ffi::AnyBuffer lambda_pos, ffi::AnyBuffer lambda_neg,
                       ffi::AnyBuffer permutation, Result loss, Result dq, Result dk, Result dtemperature,
                       Result float_scores, Result int_scores, ffi::Span<const int64_t> structure) {
  return run({FNCE_CUDA, device, stream},
             {q, k, negatives, numbers, draws, weight, lambda_pos, lambda_neg, permutation},
             {loss, dq, dk, dtemperature, float_scores, int_scores}, structure,
             [&](size_t bytes) { return scratch.Allocate(bytes, FNCE_ALIGNMENT).value_or(nullptr); });
}

}  // namespace

// Looks the library's functions up in the file that Python has loaded. Returns NULL, or what went wrong in words that
// stay until this thread's next call.
extern "C" FNCE_JAX_EXPORT const char* flashnce_jax_bind(const char* path) {
  void* const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return dlerror();
  Library found;
  const auto look_up = [&](const char* name, auto& function) {
    return (function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name))) != nullptr;
  };
  if (!look_up("fnce_problem_init", found.problem_init) || !look_up("fnce_args_init", found.args_init) ||
      !look_up("fnce_run_workspace", found.run_workspace) || !look_up("fnce_run", found.run) ||
      !look_up("fnce_last_error", found.last_error) || !look_up("fnce_get_threads", found.get_threads))
    return dlerror();
  library = found;
  return nullptr;
}

// The version of XLA's interface that the handlers were compiled with: 1000 times the major one, and the minor one.
extern "C" FNCE_JAX_EXPORT int32_t flashnce_jax_api_version() { return XLA_FFI_API_MAJOR * 1000 + XLA_FFI_API_MINOR; }

// What both handlers read and write, in the order of Inputs and _results in python/flashnce/jax/_ffi.py.
#define FNCE_JAX_BUFFERS     \
  Arg<ffi::AnyBuffer>()      \
      .Arg<ffi::AnyBuffer>() \
      .Arg<ffi::AnyBuffer>() \
      .Arg<ffi::AnyBuffer>() \
      .Arg<ffi::AnyBuffer>() \
      .Arg<ffi::AnyBuffer>() \
      .Arg<ffi::AnyBuffer>() \
      .Arg<ffi::AnyBuffer>() \
      .Arg<ffi::AnyBuffer>() \
      .Ret<ffi::AnyBuffer>() \
      .Ret<ffi::AnyBuffer>() \
      .Ret<ffi::AnyBuffer>() \
      .Ret<ffi::AnyBuffer>() \
      .Ret<ffi::AnyBuffer>() \
      .Ret<ffi::AnyBuffer>() \
      .Attr<ffi::Span<const int64_t>>("structure")

extern "C" FNCE_JAX_EXPORT XLA_FFI_Error* flashnce_jax_info_nce_cpu(XLA_FFI_CallFrame* frame);
extern "C" FNCE_JAX_EXPORT XLA_FFI_Error* flashnce_jax_info_nce_cuda(XLA_FFI_CallFrame* frame);

XLA_FFI_DEFINE_HANDLER_SYMBOL(flashnce_jax_info_nce_cpu, run_on_cpu, ffi::Ffi::Bind().FNCE_JAX_BUFFERS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(flashnce_jax_info_nce_cuda, run_on_cuda,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<fnce_stream>>()
                                  .Ctx<ffi::DeviceOrdinal>()
                                  .Ctx<ffi::ScratchAllocator>()
                                  .FNCE_JAX_BUFFERS);
