#include "core/socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

#include "core/netns.h"

namespace vhost_net {
namespace {

constexpr int kFlags = SOCK_CLOEXEC | SOCK_NONBLOCK;

union Address {
  sockaddr any;
  sockaddr_un unix_name;
  sockaddr_storage storage;
};

Result UnixAddress(const std::string& name, Address* address, socklen_t* length) {
  const bool abstract = !name.empty() && name[0] == '@';
  if (name.empty() || name == "@") return -EINVAL;
  if (name.size() - (abstract ? 1 : 0) > kUnixNameLimit) return -ENAMETOOLONG;
  static_assert(sizeof(sockaddr_un::sun_path) == kUnixNameLimit + 1);
  address->unix_name.sun_family = AF_UNIX;
  memcpy(address->unix_name.sun_path, name.data(), name.size());
  // The first byte of an abstract name is 0, and its length is part of the name: no zero byte ends it.
  if (abstract) address->unix_name.sun_path[0] = '\0';
  *length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + (abstract ? 0 : 1));
  return 0;
}

Result InternetAddress(int family, const SocketName& name, Address* address, socklen_t* length) {
  addrinfo hints = {};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;
  // Literal addresses only: nothing is asked of a name server, so it does not block.
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  if (getaddrinfo(name.host.c_str(), std::to_string(name.port).c_str(), &hints, &found) != 0) return -EINVAL;
  memcpy(&address->storage, found->ai_addr, found->ai_addrlen);
  *length = found->ai_addrlen;
  freeaddrinfo(found);
  return 0;
}

Result AddressFor(int fd, const SocketName& name, Address* address, socklen_t* length) {
  int family = 0;
  Result known = GetSocketOption(fd, SOL_SOCKET, SO_DOMAIN, &family);
  if (known < 0) return known;
  *address = {};
  return family == AF_UNIX ? UnixAddress(name.host, address, length) : InternetAddress(family, name, address, length);
}

Result NameOf(const Address& address, socklen_t length, SocketName* out) {
  *out = {};
  if (address.any.sa_family == AF_UNIX) {
    const size_t bytes = length - offsetof(sockaddr_un, sun_path);
    if (length <= offsetof(sockaddr_un, sun_path)) return 0;
    const char* path = address.unix_name.sun_path;
    out->host = path[0] == '\0' ? "@" + std::string(path + 1, bytes - 1) : std::string(path, strnlen(path, bytes));
    return 0;
  }
  char host[NI_MAXHOST];
  const int failed = getnameinfo(&address.any, length, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  if (failed != 0) return failed == EAI_SYSTEM ? -errno : -EAFNOSUPPORT;
  out->host = host;
  // The port lies at the same place in both.
  static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
  out->port = ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
  return 0;
}

}  // namespace

Result CreateSocket(const char* netns, int family, int type, UniqueFd* out) {
  if (family != AF_UNIX && family != AF_INET && family != AF_INET6) return -EAFNOSUPPORT;
  return RunInNetns(netns, [family, type, out]() -> Result {
    const int fd = socket(family, type | kFlags, 0);
    if (fd < 0) return -errno;
    *out = UniqueFd(fd);
    return 0;
  });
}

Result CreateSocketPair(UniqueFd* one, UniqueFd* other) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | kFlags, 0, fds) < 0) return -errno;
  *one = UniqueFd(fds[0]);
  *other = UniqueFd(fds[1]);
  return 0;
}

Result BindSocket(int fd, const SocketName& name) {
  Address address;
  socklen_t length = 0;
  Result made = AddressFor(fd, name, &address, &length);
  return made < 0 ? made : FromCall(bind(fd, &address.any, length));
}

Result ConnectSocket(int fd, const SocketName& name) {
  Address address;
  socklen_t length = 0;
  Result made = AddressFor(fd, name, &address, &length);
  return made < 0 ? made : FromCall(connect(fd, &address.any, length));
}

Result ListenSocket(int fd, int backlog) { return FromCall(listen(fd, backlog)); }

Result AcceptSocket(int fd, UniqueFd* out) {
  int connection;
  do {
    connection = accept4(fd, nullptr, nullptr, kFlags);
  } while (connection < 0 && errno == EINTR);
  if (connection < 0) return -errno;
  *out = UniqueFd(connection);
  return 0;
}

Result LocalName(int fd, SocketName* out) {
  Address address = {};
  socklen_t length = sizeof address;
  if (getsockname(fd, &address.any, &length) < 0) return -errno;
  return NameOf(address, length, out);
}

Result PeerName(int fd, SocketName* out) {
  Address address = {};
  socklen_t length = sizeof address;
  if (getpeername(fd, &address.any, &length) < 0) return -errno;
  return NameOf(address, length, out);
}

Result GetSocketOption(int fd, int level, int option, int* value) {
  socklen_t length = sizeof *value;
  return FromCall(getsockopt(fd, level, option, value, &length));
}

Result SetSocketOption(int fd, int level, int option, int value) {
  return FromCall(setsockopt(fd, level, option, &value, sizeof value));
}

}  // namespace vhost_net
