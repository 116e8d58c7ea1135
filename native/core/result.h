#ifndef VHOST_NET_CORE_RESULT_H_
#define VHOST_NET_CORE_RESULT_H_

#include <cerrno>
#include <cstdint>

namespace vhost_net {

/// A value of 0 or more, or a negative errno.
using Result = int64_t;

/// Turns what a system call answered (-1 and errno) into a Result.
inline Result FromCall(int64_t answer) { return answer == -1 ? -static_cast<Result>(errno) : answer; }

}  // namespace vhost_net

#endif
