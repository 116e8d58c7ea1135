#include "core/fd_socket.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cstring>

namespace vhost_net {
namespace {

/// Room for one control message of kMostDescriptors, aligned as its header.
union ControlBuffer {
  cmsghdr header;
  char bytes[CMSG_SPACE(kMostDescriptors * sizeof(int))];
};

void TakeDescriptors(msghdr* message, std::vector<UniqueFd>* out) {
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr; header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      out->emplace_back(fd);
    }
  }
}

}  // namespace

Result SendWithDescriptors(int socket, const uint8_t* bytes, size_t length, const std::vector<int>& fds) {
  if (length == 0 || fds.size() > kMostDescriptors) return -EINVAL;
  iovec vector = {const_cast<uint8_t*>(bytes), length};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  ControlBuffer control = {};
  if (!fds.empty()) {
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return FromCall(sent);
}

Result ReceiveWithDescriptors(int socket, uint8_t* target, size_t length, size_t most, std::vector<UniqueFd>* fds) {
  if (length == 0 || most > kMostDescriptors) return -EINVAL;
  iovec vector = {target, length};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  ControlBuffer control = {};
  message.msg_control = &control;
  // Exactly as much as is wanted: the kernel gives this process no number for a descriptor that does not fit.
  message.msg_controllen = CMSG_LEN(most * sizeof(int));
  ssize_t got;
  do {
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  std::vector<UniqueFd> received;
  TakeDescriptors(&message, &received);
  if ((message.msg_flags & MSG_CTRUNC) != 0) return received.size() < most ? -EMFILE : -EMSGSIZE;
  for (UniqueFd& fd : received) fds->push_back(std::move(fd));
  return got;
}

Result GetSeals(int fd) { return FromCall(fcntl(fd, F_GET_SEALS)); }

}  // namespace vhost_net
