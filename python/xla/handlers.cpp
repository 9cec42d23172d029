// The loss and the gradient of batch columns as foreign functions of XLA, which flashnce.jax registers: a handler of
// each for each kind of device, over fnce_run and fnce_columns_backward.
//
// A handler computes nothing. It reads sizes and types off the buffers, structure off one attribute, and points
// fnce_args at the rest. The library is the one that Python has loaded, so that FLASHNCE_LIBRARY counts here too: it is
// looked up by flashnce_jax_bind and not linked.
#include <dlfcn.h>
#include <flashnce/flashnce.h>

#include <cctype>
#include <cfenv>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

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
  decltype(&fnce_plan_create) plan_create = nullptr;
  decltype(&fnce_plan_destroy) plan_destroy = nullptr;
  decltype(&fnce_plan_workspace) plan_workspace = nullptr;
  decltype(&fnce_columns_backward) columns_backward = nullptr;
  // What Python calls the fields of problems and arguments.
  std::map<std::string, std::string, std::less<>> names;
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
  kForm,
  kIdMask,
  kColumnBias,
  kMarginMask,
  kFields
};

// What both kinds of handlers read, in the order of Inputs in python/flashnce/jax/_ffi.py. What is not given holds
// nothing.
enum Input : size_t {
  kQ,            // [N,D]
  kK,            // [N,D]
  kNegatives,    // [K,D]
  kNumbers,      // float32 [6]: temperature, alpha and shift of either side, margin
  kDraws,        // uint32 [4]: seed and offset, low word first
  kWeight,       // float32 [N]
  kLambdaPosIn,  // float32
  kLambdaNegIn,  // float32
  kPermutation,  // int32 [K]
  kBatch,        // [C,D]
  kIds,          // uint32 [N,2]: int64, low word first, as the next two
  kNegativeIds,  // [K,2]
  kBatchIds,     // [C,2]
  kBias,         // float32 [K]
  kBatchBias,    // float32 [C]
  kInputs,
  kLogSumExp = kInputs,  // float32 [N], of the gradient of batch columns alone, as the next
  kUpstream,             // float32 [N] or [1]
  kColumnsInputs
};

// What the loss writes; a gradient without elements is not computed. The gradient of batch columns writes one array.
enum Output : size_t {
  kLoss,
  kDq,
  kDk,
  kDTemperature,
  kLogSumExpOut,
  kFloatScores,  // float32 [rows,N], in the order of fnce_score_buffers
  kIntScores,    // uint32 [rows,N,2]: int64, which JAX has by option only
  kOutputs
};

using Inputs = std::vector<ffi::AnyBuffer>;
using Outputs = std::vector<Result>;

// All buffers of a call; none where there are other than `count`.
template <typename T, typename Remaining>
std::vector<T> buffers_of(const Remaining& remaining, size_t count) {
  std::vector<T> found;
  for (size_t i = 0; i < count && remaining.size() == count; ++i) {
    if constexpr (std::is_same_v<T, Result>) {
      if (auto buffer = remaining.template get<ffi::AnyBuffer>(i)) found.push_back(*buffer);
    } else {
      if (auto buffer = remaining.template get<T>(i)) found.push_back(*buffer);
    }
  }
  return found;
}

struct Device {
  int32_t kind, index;
  fnce_stream stream;
};

// A caller knows arguments, not the structs that carry them: `args.x_q` is q, `args.*seed_pointer` is seed.
std::string in_python(const std::string& sentence) {
  std::string words;
  for (size_t at = 0; at < sentence.size();) {
    size_t end = at;
    std::string prefix;
    for (const std::string& one : {std::string("problem."), std::string("args.")})
      if (sentence.compare(at, one.size(), one) == 0) prefix = one, end = at + one.size();
    if (prefix.empty()) {
      words += sentence[at++];
      continue;
    }
    if (end < sentence.size() && sentence[end] == '*') ++end;
    const size_t start = end;
    while (end < sentence.size() && (std::isalnum(static_cast<unsigned char>(sentence[end])) || sentence[end] == '_'))
      ++end;
    const std::string field = sentence.substr(start, end - start);
    const auto name = library.names.find(prefix + field);
    words += name == library.names.end() ? field : name->second;
    at = end;
  }
  return words;
}

ffi::Error error_of(fnce_status status) {
  const std::string sentence = in_python(library.last_error());
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
  p.n = in[kQ].dimensions()[0], p.d = in[kQ].dimensions()[1], p.k = in[kNegatives].dimensions()[0];
  p.batch_columns = in[kBatch].dimensions()[0];
  p.device = device.kind, p.device_index = device.index;
  p.feature_type = type_of(in[kQ]), p.queue_type = type_of(in[kNegatives]);
  const auto field = [&](Field which) { return static_cast<int32_t>(structure[which]); };
  p.normalize = field(kNormalize);
  p.lambda_pos = field(kLambdaPos), p.lambda_pos_source = field(kLambdaPosGiven);
  p.renormalize_pos = field(kRenormalizePos);
  p.lambda_neg = field(kLambdaNeg), p.lambda_neg_source = field(kLambdaNegGiven);
  p.renormalize_neg = field(kRenormalizeNeg);
  p.permutation_source = field(kPermutationGiven);
  p.columns = field(kColumns), p.anchor = field(kAnchor), p.reduction = field(kReduction), p.scores = field(kScores);
  p.row_offset = structure[kRowOffset];
  p.form = field(kForm), p.id_mask = field(kIdMask), p.column_bias = field(kColumnBias);
  p.margin_mask = field(kMarginMask);
  // A number that is said, so that the size of the workspace stays right when the process's default changes meanwhile.
  p.threads = device.kind != FNCE_CPU ? 0 : field(kThreads) > 0 ? field(kThreads) : library.get_threads();
  return FNCE_OK;
}

fnce_status point_inputs(const Inputs& in, const fnce_problem& problem, fnce_args& a) {
  if (const fnce_status status = library.args_init(&a, sizeof a)) return status;
  a.x_q = elements_of<void>(in[kQ]), a.x_k = elements_of<void>(in[kK]), a.queue = elements_of<void>(in[kNegatives]);
  a.x_c = elements_of<void>(in[kBatch]);
  a.weight = elements_of<float>(in[kWeight]);
  if (problem.lambda_pos_source == FNCE_GIVEN) a.lambda_pos = elements_of<float>(in[kLambdaPosIn]);
  if (problem.lambda_neg_source == FNCE_GIVEN) a.lambda_neg = elements_of<float>(in[kLambdaNegIn]);
  if (problem.permutation_source == FNCE_GIVEN) {
    a.permutation = elements_of<int32_t>(in[kPermutation]);
    a.checks = FNCE_CHECK_PERMUTATION;
  }
  a.query_ids = elements_of<int64_t>(in[kIds]), a.column_ids = elements_of<int64_t>(in[kNegativeIds]);
  a.batch_ids = elements_of<int64_t>(in[kBatchIds]);
  a.column_bias = elements_of<float>(in[kBias]), a.batch_bias = elements_of<float>(in[kBatchBias]);
  const float* const numbers = elements_of<float>(in[kNumbers]);
  a.temperature_pointer = numbers;
  a.alpha_pos_pointer = numbers + 1, a.shift_pos_pointer = numbers + 2;
  a.alpha_neg_pointer = numbers + 3, a.shift_neg_pointer = numbers + 4;
  const uint64_t* const draws = elements_of<uint64_t>(in[kDraws]);
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
  a.loss = elements_of<float>(out[kLoss]);
  a.dq = elements_of<void>(out[kDq]), a.dk = elements_of<void>(out[kDk]);
  (problem.reduction == FNCE_REDUCTION_NONE ? a.dtemperature_rows : a.dtemperature) =
      elements_of<float>(out[kDTemperature]);
  a.log_sum_exp = elements_of<float>(out[kLogSumExpOut]);
  float* floats = elements_of<float>(out[kFloatScores]);
  int64_t* integers = elements_of<int64_t>(out[kIntScores]);
  if (problem.scores & FNCE_SCORES_MIXED) point_scores(problem.n, true, floats, integers, a.mixed);
  if (problem.column_bias) a.mixed.entropy = nullptr;
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

// The problem and the arguments of a call, or what is wrong with them.
ffi::Error prepare(const Device& device, const Inputs& in, ffi::Span<const int64_t> structure, fnce_problem& problem,
                   fnce_args& args) {
  if (library.run == nullptr) return ffi::Error(ffi::ErrorCode::kFailedPrecondition, "flashnce.jax is not imported");
  if (structure.size() != kFields || in.empty())
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, "libflashnce_jax.so is of another version than flashnce.jax");
  if (const fnce_status status = problem_of(device, in, structure, problem)) return error_of(status);
  if (const fnce_status status = point_inputs(in, problem, args)) return error_of(status);
  return ffi::Error::Success();
}

ffi::Error no_memory(size_t bytes) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "no memory for a workspace of " + std::to_string(bytes) + " bytes");
}

// `allocate` gives memory of the device, aligned to FNCE_ALIGNMENT, or NULL. The margin is a number of the host, which
// only the CPU, whose problems alone have one, can read here.
template <typename Allocate>
ffi::Error run(const Device& device, const Inputs& in, Outputs out, ffi::Span<const int64_t> structure,
               Allocate allocate) {
  fnce_problem problem;
  fnce_args args;
  if (const ffi::Error error = prepare(device, in, structure, problem, args); error.failure()) return error;
  if (out.empty()) return ffi::Error(ffi::ErrorCode::kInvalidArgument, "results are missing");
  if (problem.margin_mask && device.kind == FNCE_CPU) args.margin = elements_of<float>(in[kNumbers])[5];
  point_outputs(out, problem, args);
  size_t bytes = 0;
  if (const fnce_status status = library.run_workspace(&problem, &bytes)) return error_of(status);
  void* const workspace = bytes > 0 ? allocate(bytes) : nullptr;
  if (bytes > 0 && workspace == nullptr) return no_memory(bytes);
  if (const fnce_status status = library.run(&problem, &args, workspace, bytes, device.stream)) return error_of(status);
  return ffi::Error::Success();
}

// The gradient of batch columns, in their own type.
template <typename Allocate>
ffi::Error run_columns(const Device& device, const Inputs& in, Outputs out, ffi::Span<const int64_t> structure,
                       Allocate allocate) {
  fnce_problem problem;
  fnce_args args;
  if (const ffi::Error error = prepare(device, in, structure, problem, args); error.failure()) return error;
  if (out.empty()) return ffi::Error(ffi::ErrorCode::kInvalidArgument, "results are missing");
  if (problem.margin_mask && device.kind == FNCE_CPU) args.margin = elements_of<float>(in[kNumbers])[5];
  problem.gradient_type = problem.feature_type;
  fnce_plan* created = nullptr;
  if (const fnce_status status = library.plan_create(&problem, &created)) return error_of(status);
  const std::unique_ptr<fnce_plan, decltype(library.plan_destroy)> plan(created, library.plan_destroy);
  size_t bytes = 0;
  if (const fnce_status status = library.plan_workspace(plan.get(), &bytes)) return error_of(status);
  void* const workspace = bytes > 0 ? allocate(bytes) : nullptr;
  if (bytes > 0 && workspace == nullptr) return no_memory(bytes);
  const fnce_status status = library.columns_backward(
      plan.get(), &args, nullptr, elements_of<float>(in[kLogSumExp]), elements_of<float>(in[kUpstream]),
      static_cast<int64_t>(in[kUpstream].element_count()), elements_of<void>(out[0]), workspace, bytes, device.stream);
  return status ? error_of(status) : ffi::Error::Success();
}

// Memory of the host, which XLA does not hand to handlers on a CPU; it goes with this.
class HostMemory {
 public:
  void* operator()(size_t bytes) {
    const size_t rounded = (bytes + FNCE_ALIGNMENT - 1) / FNCE_ALIGNMENT * FNCE_ALIGNMENT;
    memory_.reset(std::aligned_alloc(FNCE_ALIGNMENT, rounded));
    return memory_.get();
  }

 private:
  std::unique_ptr<void, decltype(&std::free)> memory_{nullptr, &std::free};
};

ffi::Error run_on_cpu(ffi::RemainingArgs in, ffi::RemainingRets out, ffi::Span<const int64_t> structure) {
  const DefaultFloatEnvironment environment;
  HostMemory memory;
  return run({FNCE_CPU, 0, nullptr}, buffers_of<ffi::AnyBuffer>(in, kInputs), buffers_of<Result>(out, kOutputs),
             structure, [&](size_t bytes) { return memory(bytes); });
}

ffi::Error columns_on_cpu(ffi::RemainingArgs in, ffi::RemainingRets out, ffi::Span<const int64_t> structure) {
  const DefaultFloatEnvironment environment;
  HostMemory memory;
  return run_columns({FNCE_CPU, 0, nullptr}, buffers_of<ffi::AnyBuffer>(in, kColumnsInputs), buffers_of<Result>(out, 1),
                     structure, [&](size_t bytes) { return memory(bytes); });
}

ffi::Error run_on_cuda(fnce_stream stream, int32_t device, ffi::ScratchAllocator scratch, ffi::RemainingArgs in,
                       ffi::RemainingRets out, ffi::Span<const int64_t> structure) {
  return run({FNCE_CUDA, device, stream}, buffers_of<ffi::AnyBuffer>(in, kInputs), buffers_of<Result>(out, kOutputs),
             structure, [&](size_t bytes) { return scratch.Allocate(bytes, FNCE_ALIGNMENT).value_or(nullptr); });
}

ffi::Error columns_on_cuda(fnce_stream stream, int32_t device, ffi::ScratchAllocator scratch, ffi::RemainingArgs in,
                           ffi::RemainingRets out, ffi::Span<const int64_t> structure) {
  return run_columns({FNCE_CUDA, device, stream}, buffers_of<ffi::AnyBuffer>(in, kColumnsInputs),
                     buffers_of<Result>(out, 1), structure,
                     [&](size_t bytes) { return scratch.Allocate(bytes, FNCE_ALIGNMENT).value_or(nullptr); });
}

}  // namespace

// Looks the library's functions up in the file that Python has loaded. `names` has lines of a field and what Python
// calls it, "args.x_q=q". Returns NULL, or what went wrong in words that stay until this thread's next call.
extern "C" FNCE_JAX_EXPORT const char* flashnce_jax_bind(const char* path, const char* names) {
  void* const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return dlerror();
  Library found;
  const auto look_up = [&](const char* name, auto& function) {
    return (function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name))) != nullptr;
  };
  if (!look_up("fnce_problem_init", found.problem_init) || !look_up("fnce_args_init", found.args_init) ||
      !look_up("fnce_run_workspace", found.run_workspace) || !look_up("fnce_run", found.run) ||
      !look_up("fnce_last_error", found.last_error) || !look_up("fnce_get_threads", found.get_threads) ||
      !look_up("fnce_plan_create", found.plan_create) || !look_up("fnce_plan_destroy", found.plan_destroy) ||
      !look_up("fnce_plan_workspace", found.plan_workspace) ||
      !look_up("fnce_columns_backward", found.columns_backward))
    return dlerror();
  std::istringstream lines(names);
  for (std::string line; std::getline(lines, line);)
    if (const size_t equals = line.find('='); equals != std::string::npos)
      found.names[line.substr(0, equals)] = line.substr(equals + 1);
  library = found;
  return nullptr;
}

// The version of XLA's interface that the handlers were compiled with: 1000 times the major one, and the minor one.
extern "C" FNCE_JAX_EXPORT int32_t flashnce_jax_api_version() { return XLA_FFI_API_MAJOR * 1000 + XLA_FFI_API_MINOR; }

extern "C" FNCE_JAX_EXPORT XLA_FFI_Error* flashnce_jax_info_nce_cpu(XLA_FFI_CallFrame* frame);
extern "C" FNCE_JAX_EXPORT XLA_FFI_Error* flashnce_jax_info_nce_cuda(XLA_FFI_CallFrame* frame);
extern "C" FNCE_JAX_EXPORT XLA_FFI_Error* flashnce_jax_columns_cpu(XLA_FFI_CallFrame* frame);
extern "C" FNCE_JAX_EXPORT XLA_FFI_Error* flashnce_jax_columns_cuda(XLA_FFI_CallFrame* frame);

#define FNCE_JAX_BUFFERS RemainingArgs().RemainingRets().Attr<ffi::Span<const int64_t>>("structure")
#define FNCE_JAX_ON_CUDA Ctx<ffi::PlatformStream<fnce_stream>>().Ctx<ffi::DeviceOrdinal>().Ctx<ffi::ScratchAllocator>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(flashnce_jax_info_nce_cpu, run_on_cpu, ffi::Ffi::Bind().FNCE_JAX_BUFFERS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(flashnce_jax_columns_cpu, columns_on_cpu, ffi::Ffi::Bind().FNCE_JAX_BUFFERS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(flashnce_jax_info_nce_cuda, run_on_cuda,
                              ffi::Ffi::Bind().FNCE_JAX_ON_CUDA.FNCE_JAX_BUFFERS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(flashnce_jax_columns_cuda, columns_on_cuda,
                              ffi::Ffi::Bind().FNCE_JAX_ON_CUDA.FNCE_JAX_BUFFERS);
