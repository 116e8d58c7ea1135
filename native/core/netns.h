#ifndef VHOST_NET_CORE_NETNS_H_
#define VHOST_NET_CORE_NETNS_H_

#include "core/result.h"

namespace vhost_net {

/// Calls job(context) on a new thread inside the network namespace at `path` (such as /run/netns/x), and waits for it,
/// so that no other thread ever changes namespace. With a null path the calling thread does it. Answers what the job
/// answers, or why the namespace could not be entered.
Result CallInNetns(const char* path, Result (*job)(void*), void* context);

/// CallInNetns for anything callable that answers a Result.
template <typename Job>
Result RunInNetns(const char* path, Job&& job) {
  return CallInNetns(
      path, [](void* context) -> Result { return (*static_cast<Job*>(context))(); }, &job);
}

}  // namespace vhost_net

#endif
