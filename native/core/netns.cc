#include "core/netns.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>

#include "core/signal_block.h"
#include "core/unique_fd.h"

namespace vhost_net {
namespace {

struct Visit {
  int netns;
  Result (*job)(void*);
  void* context;
  Result result;
};

void* Run(void* argument) {
  auto* visit = static_cast<Visit*>(argument);
  visit->result = setns(visit->netns, CLONE_NEWNET) < 0 ? -errno : visit->job(visit->context);
  return nullptr;
}

}  // namespace

Result CallInNetns(const char* path, Result (*job)(void*), void* context) {
  if (path == nullptr) return job(context);
  UniqueFd netns;
  Result opened = OpenFd(path, O_RDONLY, &netns);
  if (opened < 0) return opened;
  Visit visit = {netns.get(), job, context, 0};
  // The new thread inherits the mask: it must not be picked to handle the process's signals.
  SignalBlock block;
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, Run, &visit);
  if (error != 0) return -error;
  pthread_join(thread, nullptr);
  return visit.result;
}

}  // namespace vhost_net
