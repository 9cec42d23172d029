// Workers sleep between calls. A call has several parallel steps in quick succession, so a worker first spins for a
// moment: waking costs more than a small step. It never spins longer, because the caller's own threads need the cores.
#include "cpu/pool.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/placement.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace fnce::cpu {
namespace {

constexpr int kSpins = 2000;

inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  // `yield` does nothing on most processors; this makes them wait a moment.
  asm volatile("isb" ::: "memory");
#endif
}

struct Job {
  TaskBody body;
  void* context;
  int64_t tasks;
  std::atomic<int64_t> next{0};
  Processors processors;

  void work(int worker) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(context, task, worker);
  }
};

// Signals of the program are for the program's own threads.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

class Pool {
 public:
  // False if another call has the threads.
  bool try_run(int threads, Job& job) {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    const size_t helpers = hire(static_cast<size_t>(threads - 1));
    job.processors.take();
    for (size_t i = 0; i < helpers; ++i) {
      workers_[i]->job = &job;
      workers_[i]->state.store(kCalled, std::memory_order_release);
      workers_[i]->state.notify_one();
    }
    // A worker that was woken up on this processor runs now, and moves to another one.
    std::this_thread::yield();
    job.work(0);
    for (size_t i = 0; i < helpers; ++i) dismiss(workers_[i]->state);
    return true;
  }

 private:
  // A worker's word: the caller sets kCalled, the worker answers kRunning and, when it finds no task any more, kIdle.
  enum State : int { kIdle, kCalled, kRunning };

  // Workers sleep on a word of their own, each in its own cache line.
  struct alignas(64) Worker {
    std::atomic<int> state{kIdle};
    Job* job = nullptr;
  };

  // Takes the call back from a worker that has not woken up yet: all tasks are taken, and waking takes longer than a
  // small step. Waits for one that is running.
  static void dismiss(std::atomic<int>& state) {
    int called = kCalled;
    if (state.compare_exchange_strong(called, kIdle, std::memory_order_acq_rel)) return;
    wait_while(state, [](int now) { return now == kRunning; });
  }

  template <class Condition>
  static void wait_while(std::atomic<int>& word, Condition&& holds) {
    int value;
    for (int spin = 0; holds(value = word.load(std::memory_order_acquire));) {
      if (++spin < kSpins) {
        pause_cpu();
      } else {
        word.wait(value, std::memory_order_acquire);
      }
    }
  }

  // Up to `wanted` workers: fewer where the system gives no more threads, since results do not depend on their number.
  size_t hire(size_t wanted) {
    try {
      workers_.reserve(wanted);
      while (workers_.size() < wanted) {
        auto worker = std::make_unique<Worker>();
        start(*worker, static_cast<int>(workers_.size()) + 1);
        workers_.push_back(std::move(worker));
      }
    } catch (const std::exception&) {
    }
    return workers_.size() < wanted ? workers_.size() : wanted;
  }

  static void start(Worker& worker, int index) {
    const BlockedSignals blocked;
    std::thread([&worker, index] {
      for (;;) {
        wait_while(worker.state, [](int now) { return now == kIdle; });
        int called = kCalled;
        if (!worker.state.compare_exchange_strong(called, kRunning, std::memory_order_acq_rel)) continue;
        worker.job->processors.take();
        worker.job->work(index);
        // The job lives on the caller's stack: after this line it is gone.
        worker.state.store(kIdle, std::memory_order_release);
        worker.state.notify_one();
      }
    }).detach();
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

std::atomic<Pool*> g_pool{nullptr};

// A pool outlives every call and is never destroyed: its threads may still sleep when the process ends. A forked child
// has none of the threads, so it starts with a pool of its own.
Pool& pool() {
  Pool* current = g_pool.load(std::memory_order_acquire);
  if (current) return *current;
  static std::once_flag registered;
  std::call_once(registered, [] { pthread_atfork(nullptr, nullptr, [] { g_pool.store(nullptr); }); });
  auto* created = new Pool;
  if (g_pool.compare_exchange_strong(current, created)) return *created;
  delete created;
  return *current;
}

}  // namespace

void run_tasks(int threads, int64_t tasks, TaskBody body, void* context) {
  Job job{body, context, tasks};
  const int useful = static_cast<int>(tasks < threads ? tasks : threads);
  if (useful > 1 && pool().try_run(useful, job)) return;
  job.work(0);
}

}  // namespace fnce::cpu
