#ifndef VHOST_NET_CORE_SOCKET_H_
#define VHOST_NET_CORE_SOCKET_H_

#include <cstdint>
#include <string>

#include "core/result.h"
#include "core/unique_fd.h"

namespace vhost_net {

/// Where a stream socket is: of AF_INET and AF_INET6 a literal address (with %scope) and a port, of AF_UNIX a path, or
/// `@name` for a name of the abstract namespace, with port 0. A socket without a name has an empty host.
struct SocketName {
  std::string host;
  uint16_t port = 0;
};

/// Longest path or abstract name of AF_UNIX in bytes: sun_path less the zero byte.
constexpr size_t kUnixNameLimit = 107;

/// A non-blocking socket of AF_UNIX, AF_INET or AF_INET6 and a type such as SOCK_STREAM, which belongs to the network
/// namespace at `netns` (null: the caller's own).
Result CreateSocket(const char* netns, int family, int type, UniqueFd* out);
/// Two non-blocking AF_UNIX sockets that are connected with each other.
Result CreateSocketPair(UniqueFd* one, UniqueFd* other);

/// The name is read as the socket's family has it: -EINVAL when it has no such names, -ENAMETOOLONG above
/// kUnixNameLimit.
Result BindSocket(int fd, const SocketName& name);
/// 0 connected, -EINPROGRESS when it is writable (or failed) later; AF_UNIX: -EAGAIN when the listener's queue is full.
Result ConnectSocket(int fd, const SocketName& name);
Result ListenSocket(int fd, int backlog);
/// A non-blocking connection, or -EAGAIN when none waits.
Result AcceptSocket(int fd, UniqueFd* out);
Result LocalName(int fd, SocketName* out);
Result PeerName(int fd, SocketName* out);

/// Socket options that are an int. The value, or 0.
Result GetSocketOption(int fd, int level, int option, int* value);
Result SetSocketOption(int fd, int level, int option, int value);

}  // namespace vhost_net

#endif
