#ifndef VHOST_NET_CORE_NETDEV_H_
#define VHOST_NET_CORE_NETDEV_H_

#include "core/result.h"

namespace vhost_net {

/// One of SIOCSIFTXQLEN, SIOCGIFTXQLEN, SIOCSIFMTU, SIOCGIFMTU, SIOCSIFFLAGS, SIOCGIFFLAGS, SIOCGIFINDEX on an
/// interface of the calling thread's network namespace. Getters answer the value, setters 0. -EINVAL for any other
/// request or a name of 16 bytes or more.
Result NetdevRequest(const char* name, unsigned long what, int value);
/// Sets IFF_UP if it is not set.
Result BringUp(const char* name);

}  // namespace vhost_net

#endif
