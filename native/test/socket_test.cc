#include "core/socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/check.h"

namespace vhost_net {
namespace {

bool Ready(int fd, short events) {
  pollfd watched = {fd, events, 0};
  return poll(&watched, 1, 2000) == 1;
}

/// A connection through a listener at `name`: both ends and the listener's own name.
void Connect(int family, const SocketName& name, UniqueFd* near, UniqueFd* far, SocketName* bound) {
  UniqueFd listener;
  CHECK_EQUAL(CreateSocket(nullptr, family, SOCK_STREAM, &listener), 0);
  CHECK_EQUAL(BindSocket(listener.get(), name), 0);
  CHECK_EQUAL(AcceptSocket(listener.get(), far), -EINVAL);
  CHECK_EQUAL(ListenSocket(listener.get(), 4), 0);
  CHECK_EQUAL(AcceptSocket(listener.get(), far), -EAGAIN);
  CHECK_EQUAL(LocalName(listener.get(), bound), 0);
  CHECK_EQUAL(CreateSocket(nullptr, family, SOCK_STREAM, near), 0);
  const Result begun = ConnectSocket(near->get(), *bound);
  CHECK(begun == 0 || begun == -EINPROGRESS);
  CHECK(Ready(listener.get(), POLLIN));
  CHECK_EQUAL(AcceptSocket(listener.get(), far), 0);
  CHECK(Ready(near->get(), POLLOUT));
  int error = -1;
  CHECK_EQUAL(GetSocketOption(near->get(), SOL_SOCKET, SO_ERROR, &error), 0);
  CHECK_EQUAL(error, 0);
}

}  // namespace

TEST(tcp_connects_and_says_where) {
  UniqueFd near, far;
  SocketName bound, name;
  Connect(AF_INET, {"127.0.0.1", 0}, &near, &far, &bound);
  CHECK(bound.host == "127.0.0.1");
  CHECK(bound.port != 0);
  CHECK_EQUAL(PeerName(near.get(), &name), 0);
  CHECK(name.host == "127.0.0.1");
  CHECK_EQUAL(name.port, bound.port);
  for (int fd : {near.get(), far.get()}) {
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
  }
  CHECK_EQUAL(write(near.get(), "hello", 5), 5);
  char text[5];
  CHECK(Ready(far.get(), POLLIN));
  CHECK_EQUAL(read(far.get(), text, sizeof text), 5);
}

TEST(unix_names_in_files_and_in_the_abstract) {
  const std::string path = "/tmp/vhost-net-socket-test-" + std::to_string(getpid());
  for (const std::string& name : {path, "@" + path}) {
    UniqueFd near, far;
    SocketName bound, peer;
    Connect(AF_UNIX, {name, 0}, &near, &far, &bound);
    CHECK(bound.host == name);
    CHECK_EQUAL(PeerName(near.get(), &peer), 0);
    CHECK(peer.host == name);
    CHECK_EQUAL(PeerName(far.get(), &peer), 0);
    CHECK(peer.host.empty());
  }
  UniqueFd late;
  CHECK_EQUAL(CreateSocket(nullptr, AF_UNIX, SOCK_STREAM, &late), 0);
  CHECK_EQUAL(ConnectSocket(late.get(), {path, 0}), -ECONNREFUSED);
  CHECK_EQUAL(BindSocket(late.get(), {path, 0}), -EADDRINUSE);
  CHECK_EQUAL(unlink(path.c_str()), 0);
  CHECK_EQUAL(ConnectSocket(late.get(), {path, 0}), -ENOENT);
  CHECK_EQUAL(ConnectSocket(late.get(), {"@" + path, 0}), -ECONNREFUSED);
}

TEST(a_unix_listener_is_found_without_connecting) {
  const std::string path = "/tmp/vhost-net-socket-probe-" + std::to_string(getpid());
  UniqueFd listener, probe, none;
  CHECK_EQUAL(CreateSocket(nullptr, AF_UNIX, SOCK_STREAM, &listener), 0);
  CHECK_EQUAL(CreateSocket(nullptr, AF_UNIX, SOCK_DGRAM, &probe), 0);
  CHECK_EQUAL(BindSocket(listener.get(), {path, 0}), 0);
  CHECK_EQUAL(ConnectSocket(probe.get(), {path, 0}), -EPROTOTYPE);
  CHECK_EQUAL(ListenSocket(listener.get(), 4), 0);
  CHECK_EQUAL(ConnectSocket(probe.get(), {path, 0}), -EPROTOTYPE);
  CHECK_EQUAL(AcceptSocket(listener.get(), &none), -EAGAIN);
  listener.Reset();
  CHECK_EQUAL(ConnectSocket(probe.get(), {path, 0}), -ECONNREFUSED);
  CHECK_EQUAL(unlink(path.c_str()), 0);
}

TEST(unix_names_as_long_as_they_can_be) {
  const std::string folder = "/tmp/vhost-net-long-" + std::to_string(getpid()) + "-";
  const std::string longest = folder + std::string(kUnixNameLimit - folder.size(), 'x');
  for (const std::string& name : {longest, "@" + longest}) {
    UniqueFd fd;
    SocketName bound;
    CHECK_EQUAL(CreateSocket(nullptr, AF_UNIX, SOCK_STREAM, &fd), 0);
    CHECK_EQUAL(BindSocket(fd.get(), {name + "x", 0}), -ENAMETOOLONG);
    CHECK_EQUAL(BindSocket(fd.get(), {name, 0}), 0);
    CHECK_EQUAL(LocalName(fd.get(), &bound), 0);
    CHECK(bound.host == name);
  }
  CHECK_EQUAL(unlink(longest.c_str()), 0);
}

TEST(socket_names_of_another_family_are_refused) {
  const int before = test::OpenFds();
  {
    UniqueFd internet, unix_socket;
    CHECK_EQUAL(CreateSocket(nullptr, AF_INET, SOCK_STREAM, &internet), 0);
    for (const char* host : {"", "localhost", "::1", "/tmp/x", "1.2.3.4.5"}) {
      CHECK_EQUAL(BindSocket(internet.get(), {host, 1}), -EINVAL);
      CHECK_EQUAL(ConnectSocket(internet.get(), {host, 1}), -EINVAL);
    }
    CHECK_EQUAL(CreateSocket(nullptr, AF_UNIX, SOCK_STREAM, &unix_socket), 0);
    CHECK_EQUAL(BindSocket(unix_socket.get(), {"", 0}), -EINVAL);
    CHECK_EQUAL(BindSocket(unix_socket.get(), {"@", 0}), -EINVAL);
    SocketName name;
    CHECK_EQUAL(LocalName(unix_socket.get(), &name), 0);
    CHECK(name.host.empty());
    CHECK_EQUAL(PeerName(unix_socket.get(), &name), -ENOTCONN);
    CHECK_EQUAL(LocalName(-1, &name), -EBADF);
    CHECK_EQUAL(BindSocket(-1, {"x", 0}), -EBADF);
    UniqueFd none;
    CHECK_EQUAL(CreateSocket(nullptr, AF_NETLINK, SOCK_STREAM, &none), -EAFNOSUPPORT);
    CHECK_EQUAL(CreateSocket("/nonexistent", AF_INET, SOCK_STREAM, &none), -ENOENT);
  }
  CHECK_EQUAL(test::OpenFds(), before);
}

TEST(socket_options_are_what_was_set) {
  UniqueFd fd;
  int value = 0;
  CHECK_EQUAL(CreateSocket(nullptr, AF_INET, SOCK_STREAM, &fd), 0);
  CHECK_EQUAL(SetSocketOption(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, 9500), 0);
  CHECK_EQUAL(GetSocketOption(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &value), 0);
  CHECK_EQUAL(value, 9500);
  CHECK_EQUAL(SetSocketOption(fd.get(), IPPROTO_TCP, 9999, 1), -ENOPROTOOPT);
}

}  // namespace vhost_net
