#ifndef VHOST_NET_CORE_FD_SOCKET_H_
#define VHOST_NET_CORE_FD_SOCKET_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/result.h"
#include "core/unique_fd.h"

namespace vhost_net {

/// SCM_MAX_FD of include/net/scm.h: descriptors that one message carries.
constexpr size_t kMostDescriptors = 253;

/// sendmsg(2) of `length` bytes, at least one, with `fds` beside the first of them. Bytes taken, which may be fewer: the
/// descriptors are under way all the same. -EINVAL above kMostDescriptors, -EAGAIN when there is no room.
Result SendWithDescriptors(int socket, const uint8_t* bytes, size_t length, const std::vector<int>& fds);

/// recvmsg(2) into `target`: bytes received, 0 at the end of the stream. Descriptors that come along are appended to
/// *fds, close-on-exec. When more than `most` come all of that message are closed: -EMSGSIZE; -EMFILE when this process
/// had no number for one of them. A read ends behind the first message of which it took descriptors.
Result ReceiveWithDescriptors(int socket, uint8_t* target, size_t length, size_t most, std::vector<UniqueFd>* fds);

/// F_GET_SEALS: F_SEAL_* bits. -EINVAL for what is no memfd and no file of a memory file system.
Result GetSeals(int fd);

}  // namespace vhost_net

#endif
