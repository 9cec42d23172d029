#include "api/cache.h"

#include <pthread.h>

#include <list>
#include <mutex>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "core/threads.h"
#include "registry.h"

namespace fnce {
namespace {

// This is enough for every layer of a model. Beyond it, the plan that was unused for longest goes.
constexpr size_t kMaxPlans = 256;

struct Entry {
  std::string key;
  std::shared_ptr<const fnce_plan> plan;
};

struct Cache {
  std::mutex mutex;
  std::list<Entry> by_use;  // latest first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key;
};

// The cache is never destroyed, because a thread may still call while the process ends.
Cache& cache() {
  static Cache* const instance = [] {
    // A fork waits until no call is inside, because the child must not inherit a lock that nobody will open.
    pthread_atfork([] { cache().mutex.lock(); }, [] { cache().mutex.unlock(); }, [] { cache().mutex.unlock(); });
    return new Cache;
  }();
  return *instance;
}

}  // namespace

std::shared_ptr<const fnce_plan> cached_plan(const fnce_problem* problem) {
  const Problem checked(problem);
  fnce_problem resolved = checked.raw();
  if (resolved.threads == 0) resolved.threads = default_threads();
  // fnce_problem has no padding, so equal problems have equal bytes.
  static_assert(std::has_unique_object_representations_v<fnce_problem>);
  std::string key(reinterpret_cast<const char*>(&resolved), sizeof resolved);

  Cache& plans = cache();
  const std::lock_guard<std::mutex> lock(plans.mutex);
  if (const auto found = plans.by_key.find(key); found != plans.by_key.end()) {
    plans.by_use.splice(plans.by_use.begin(), plans.by_use, found->second);
    return found->second->plan;
  }
  std::shared_ptr<const fnce_plan> plan = make_plan(Problem(&resolved), backends());
  plans.by_use.push_front({key, plan});
  plans.by_key.emplace(std::move(key), plans.by_use.begin());
  if (plans.by_use.size() > kMaxPlans) {
    plans.by_key.erase(plans.by_use.back().key);
    plans.by_use.pop_back();
  }
  return plan;
}

}  // namespace fnce
