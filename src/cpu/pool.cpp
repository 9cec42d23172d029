// Workers sleep between calls. A call has several parallel steps a few microseconds apart, so a worker first spins for about
// that long: waking costs more than a small step. It never spins longer, because the caller's own threads need the cores.
#include "cpu/pool.h"

#include <pthread.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace fnce::cpu {
namespace {

constexpr int kSpins = 2000;  // about 30 microseconds of pauses

inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#endif
}

struct Job {
  TaskBody body;
  void* context;
  int64_t tasks;
  std::atomic<int64_t> next{0};

  void work(int worker) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(context, task, worker);
  }
};

class Pool {
 public:
  // False if another call has the threads.
  bool try_run(int threads, Job& job) {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    const auto helpers = static_cast<size_t>(threads - 1);
    while (workers_.size() < helpers) {
      workers_.push_back(std::make_unique<Worker>());
      start(*workers_.back(), static_cast<int>(workers_.size()));
    }
    pending_.store(static_cast<int>(helpers), std::memory_order_relaxed);
    for (size_t i = 0; i < helpers; ++i) {
      workers_[i]->job.store(&job, std::memory_order_release);
      workers_[i]->job.notify_one();
    }
    job.work(0);
    int left;
    for (int spin = 0; (left = pending_.load(std::memory_order_acquire)) != 0;) {
      if (++spin < kSpins) {
        pause_cpu();
      } else {
        pending_.wait(left, std::memory_order_acquire);
      }
    }
    return true;
  }

 private:
  struct Worker {
    std::atomic<Job*> job{nullptr};
  };

  void start(Worker& worker, int index) {
    std::thread([this, &worker, index] {
      for (;;) {
        Job* job;
        for (int spin = 0; (job = worker.job.load(std::memory_order_acquire)) == nullptr;) {
          if (++spin < kSpins) {
            pause_cpu();
          } else {
            worker.job.wait(nullptr, std::memory_order_acquire);
          }
        }
        worker.job.store(nullptr, std::memory_order_relaxed);
        job->work(index);
        // The job lives on the caller's stack: after this line it is gone.
        if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
      }
    }).detach();
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<int> pending_{0};
};

std::atomic<Pool*> g_pool{nullptr};

// A pool outlives every call and is never destroyed: its threads may still sleep when the process ends. A forked child has
// none of the threads, so it starts with a pool of its own.
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
