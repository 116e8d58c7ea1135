#ifndef VHOST_NET_CORE_EVENT_FD_H_
#define VHOST_NET_CORE_EVENT_FD_H_

#include "core/result.h"
#include "core/unique_fd.h"

namespace vhost_net {

/// eventfd(2) with EFD_CLOEXEC and EFD_NONBLOCK added.
Result CreateEventFd(unsigned int initial, int flags, UniqueFd* out);
/// Adds 1.
Result SignalEventFd(int fd);
/// Reads and clears the counter into *value, never blocks: -EAGAIN when it is 0, also on a blocking eventfd.
Result DrainEventFd(int fd, uint64_t* value);

}  // namespace vhost_net

#endif
